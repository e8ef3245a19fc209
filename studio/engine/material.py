"""What a run needs before a model is loaded: its files fetched, its pairs read, tokenized and divided.

Without PEFT, so that what is wrong with them is told early.
"""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from studio import events, model_files, trackers
from studio.begun import Begun
from studio.engine import data, fidelity, precision, provenance, remote_code, snapshot, tokens, vocabulary
from studio.engine.worker import Desk
from studio.errors import DataError, NoSpaceError
from studio.preferences.pairs import Pair, common_system
from studio.settings import Settings

QUESTIONS = 20
"""Of the pairs that are learned from, among how many prompts to sample are chosen where none are held out."""


def refuse_what_cannot_run(settings: Settings) -> None:
    """Raises StudioError before anything is loaded, for what only this machine can know."""
    precision.device(settings.model)
    trackers.refuse_one_that_is_missing(settings.training.report_to)


def download(settings: Settings, desk: Desk) -> None:
    """Fetch a Hub model into the cache, saying bytes done; a local folder or the practice model needs nothing.

    Raises StudioError, before any weights are fetched, for a model that needs code which nobody has allowed, or cannot be trained.
    """
    folder = snapshot.of(settings.model, desk.token, weights=False, code=bool(desk.consent))
    model_files.refuse_without_vocabulary(settings.model.name, [path.name for path in folder.iterdir()])
    remote_code.refuse_unless_allowed(remote_code.needed(settings.model, folder), desk.consent)
    if Path(vocabulary.where(settings.model)).is_dir():
        return

    def begins(total: int) -> type:
        _refuse_without_space(total)
        return _progress(desk, total)

    snapshot.fetch(settings.model, desk.token, snapshot.WEIGHTS, begins)


def _refuse_without_space(needed: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(f"The model needs {needed / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB are free. "
                           "Free some space, or point HF_HOME to a larger disk.")


def _progress(desk: Desk, total: int):
    """A tqdm class that says bytes instead of drawing bars; the Hub client makes one per file and one for all."""
    from tqdm.auto import tqdm

    class Told(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **(options | {"disable": False, "file": io.StringIO()}))

        def update(self, n=1):
            super().update(n)
            if self.unit == "B":
                desk.progress(min(int(self.n), total), total, "bytes")

    return Told


@dataclass(frozen=True)
class Material:
    """What a run learns from and what it is measured on: tokens of both, and the held-out pairs as they read.

    `questions` are pairs whose prompts can be sampled: the held-out ones, or some that are learned from where none are.
    `system` is the system prompt that all pairs have, if they have the same.
    """

    train: tokens.Tokens
    held_out_tokens: tokens.Tokens
    held_out: list[Pair]
    questions: list[Pair]
    system: str = ""


def gather(settings: Settings, tokenizer, desk: Desk, begun: Begun) -> Material:
    """The pairs that the settings ask for, tokenized and divided, with everything left out said. Raises DataError."""
    reading = data.read(settings.data, desk.token, desk.folder, begun.rules)
    for words in reading.in_words():
        desk.say(events.Noted(words))
    found, max_length = reading.pairs, settings.training.max_length
    encoded = tokens.tokenize(found, tokenizer, max_length, moment=begun.moment,
                              progress=lambda done: desk.progress(done, len(found), "pairs"))
    _refuse_tokens_without_rows(encoded, settings, tokenizer, desk)
    _say_what_is_lost(settings, reading, encoded, tokenizer.chat_template, desk)
    fitting = tokens.fitting(encoded, max_length)
    if fitting.left_out:
        desk.say(events.Noted(fitting.in_words(found)))
    if len(fitting.places) < 2:
        instead = ("Choose another chat template, or other data." if encoded.lost.any()
                   else "Raise the maximum length, or choose data with shorter questions.")
        raise DataError(f"{fitting.in_words(found)} {instead}")
    train, held_out = data.divided(reading, fitting.places, settings.data)
    if not train:
        raise DataError(f"{fitting.in_words(found)} No pair is left to learn from. Raise the maximum length.")
    desk.say(provenance.gathered(settings, reading, desk.token))
    kept_away = [found[place] for place in held_out]
    return Material(encoded.at(train), encoded.at(held_out), kept_away, kept_away or [found[place] for place in train[:QUESTIONS]],
                    common_system(found[place].prompt for place in (*train, *held_out)))


def _refuse_tokens_without_rows(encoded: tokens.Tokens, settings: Settings, tokenizer, desk: Desk) -> None:
    """Raises DataError for a token that the base's tokenizer has and its embedding matrix does not."""
    rows = vocabulary.rows(snapshot.of(settings.model, desk.token, weights=False), len(tokenizer))
    if len(encoded.ids) and (highest := int(encoded.ids.max())) >= rows:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise DataError(f"The pairs contain {token!r}, a token without a row in the embedding matrix of {settings.model.name}, which has "
                        f"{rows:,}. Remove it from the pairs, or choose a chat template or a base without it.")


def _say_what_is_lost(settings: Settings, reading: data.Reading, encoded: tokens.Tokens, template: str, desk: Desk) -> None:
    """Say what the chat template leaves out of the pairs, and how they ask. Raises DataError where it leaves nothing of an answer."""
    for loss in fidelity.told(encoded.lost.tolist() if encoded.lost.any() else (), template):
        words = fidelity.in_words(loss, reading.found.number, len(encoded))
        if loss.name == fidelity.EMPTIED and not settings.data.leave_out:
            raise DataError(words)
        desk.say(events.Noted(words))
    if words := encoded.asking.in_words():
        desk.say(events.Noted(words))
    encoded.asking.save(desk.folder)
