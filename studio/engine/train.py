"""The training job: python -m studio.engine.train RUN.

Reads settings.yaml, says what happens in events.jsonl, leaves held_out.jsonl and, last and whole, adapter/.
"""

import sys

from studio import begun, events
from studio.engine import data, material, precision
from studio.engine.vocabulary import chatml_in_words, load_tokenizer
from studio.engine.worker import Desk, work
from studio.runs import Run


def train(desk: Desk) -> events.Event | None:
    """The whole run. Returns Stopped if it was asked to end early, after saving what it had learned."""
    run = Run(desk.folder)
    run.stored.refuse_to_train()
    settings = run.settings
    material.refuse_what_cannot_run(settings)
    desk.enter("downloading")
    material.download(settings, desk)
    tokenizer = load_tokenizer(settings.model, desk.token)
    if words := chatml_in_words(settings.model, tokenizer):
        desk.say(events.Noted(words))
    desk.enter("tokenizing")
    start = begun.of(events.read(run.folder / events.FILE))
    gathered = material.gather(settings, tokenizer, desk, start)
    data.write_pairs(run.held_out, gathered.held_out)
    desk.enter("loading")
    from studio.engine import learning  # PEFT comes with it: slow, and what was wrong so far has been told without

    return learning.learn(desk, run, tokenizer, gathered, start)


if __name__ == "__main__":
    sys.exit(work(train, lambda desk: precision.name(Run(desk.folder).settings.model), finishes=("training", "saving")))
