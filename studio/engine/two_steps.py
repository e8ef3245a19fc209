"""Two real steps on the longest pairs: python -m studio.engine.two_steps FOLDER.

Reads request.yaml (the settings of a run), loads what a run would load, says Tried. Nothing is left but its log.
"""

import sys
import time

from transformers import TrainerCallback

from studio import collector, events
from studio.begun import Begun
from studio.engine import model, precision
from studio.engine.material import download, gather, refuse_what_cannot_run
from studio.engine.orpo import packing
from studio.engine.orpo import trainer as orpo
from studio.engine.reporter import peak_memory
from studio.engine.stopping import StopRequested
from studio.engine.vocabulary import load_tokenizer
from studio.engine.worker import Desk, work
from studio.settings import Settings

STEPS = 2


class Stopwatch(TrainerCallback):
    """The seconds of each step; ends the trial when asked to."""

    def __init__(self, desk: Desk):
        self.desk, self.seconds, self._begun = desk, [], 0.0

    def on_step_begin(self, args, state, control, **_):
        self._begun = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        self.seconds.append(time.perf_counter() - self._begun)
        self.desk.progress(state.global_step, STEPS, "steps")
        control.should_training_stop = control.should_training_stop or self.desk.asked_to_stop


def two_steps(desk: Desk) -> events.Event | None:
    """The whole trial. Returns Stopped if it was asked to end before two steps were taken."""
    try:
        return _measured(desk)
    except StopRequested:
        return events.Stopped(step=0)


def _measured(desk: Desk) -> events.Event | None:
    settings = _short(Settings.from_file(desk.folder / "request.yaml"))
    refuse_what_cannot_run(settings)
    desk.enter("downloading")
    download(settings, desk)
    tokenizer = load_tokenizer(settings.model, desk.token)
    desk.enter("tokenizing")
    pairs = gather(settings, tokenizer, desk, Begun()).train
    desk.enter("loading")
    tuned = model.add_adapter(model.load_base(settings.model, tokenizer, desk.token, consent=desk.consent), settings)
    trainer = orpo.build(settings, tuned, tokenizer, pairs, desk.folder)
    desk.say(events.Noted(trainer.in_words()))
    costs = [packing.cost(pair, trainer.scorer.packed) for pair in pairs]
    effective = settings.training.batch_size * settings.training.accumulation
    whole_steps = min(STEPS, max(1, len(costs) // effective))
    longest = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)[: whole_steps * effective]
    trainer.train_dataset = [pairs[place] for place in longest]
    watch = Stopwatch(desk)
    trainer.add_callback(watch)
    collector.settle()
    desk.enter("training")
    trainer.train()
    if len(watch.seconds) < STEPS:
        return events.Stopped(step=len(watch.seconds))
    # The first step warms up: kernels are chosen and memory is fetched. Rows are shuffled: a step has its share of them.
    step_tokens = sum(costs[place] for place in longest) / whole_steps
    desk.say(events.Tried(seconds=watch.seconds[-1], memory=peak_memory(), pairs=len(pairs), longest=max(costs),
                          step_tokens=round(step_tokens), all_tokens=sum(costs)))
    return None


def _short(settings: Settings) -> Settings:
    """The same settings for two steps that no tracker hears of."""
    training = settings.training.model_copy(update={"max_steps": STEPS, "report_to": "none"})
    return settings.model_copy(update={"training": training})


if __name__ == "__main__":
    sys.exit(work(two_steps, lambda desk: precision.name(Settings.from_file(desk.folder / "request.yaml").model)))
