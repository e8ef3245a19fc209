"""A dataset -> pairs -> what fits -> training and held-out splits.

Nothing is lost in silence: each function that leaves rows out says how many and why.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset, load_dataset

from studio import pairs
from studio.engine.worker import about
from studio.errors import DataError
from studio.pairs import Pair, Reading
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.settings import PRACTICE, DataSettings

if TYPE_CHECKING:  # a look at a dataset needs no tokenizer, and importing one takes seconds
    from transformers import PreTrainedTokenizerBase

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Encoded:
    """A pair as token ids. `prompt` counts the leading tokens that both answers share and that are not scored."""

    prompt: int
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class Splits:
    """The pairs to train on and those kept away from training."""

    train: list[Pair]
    held_out: list[Pair]


def load_rows(settings: DataSettings, token: str | None = None) -> Dataset:
    """All rows of the source. Raises DataError for a file that cannot be read or holds none."""
    path = PRACTICE_PAIRS if settings.source == PRACTICE else Path(settings.source)
    if path.suffix.lower() in LOADERS:
        rows = _load_file(path)
    else:
        with about(settings.source):
            rows = _load_from_hub(settings, token)
    if len(rows) == 0:
        raise DataError(f"{settings.source} holds no rows. Choose a dataset with preference pairs.")
    return rows


def _load_file(path: Path) -> Dataset:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Choose another file, or upload it again.")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty. Choose a file with preference pairs.")
    try:
        return load_dataset(LOADERS[path.suffix.lower()], data_files=str(path), split="train")
    except Exception as error:  # the loaders raise whatever their parser raises
        if "corresponds to no data" in str(error):
            raise DataError(f"{path.name} holds no rows. Choose a file with preference pairs.") from error
        first_line = str(error.__cause__ or error).strip().splitlines()[0][:200]
        raise DataError(f"{path.name} cannot be read as {path.suffix[1:].upper()}: {first_line}. "
                        "Repair the file, or save it anew as JSONL.") from error


def _load_from_hub(settings: DataSettings, token: str | None) -> Dataset:
    try:
        return load_dataset(settings.source, settings.subset or None, split=settings.split,
                            revision=settings.revision or None, token=token)
    except ValueError as error:
        text = str(error)
        if "Unknown split" in text or "BuilderConfig" in text or "Config name is missing" in text:
            raise DataError(f"{settings.source} has no such part: {text.splitlines()[0][:200]} "
                            "Change subset or split in the form.") from error
        raise


def read(settings: DataSettings, token: str | None = None) -> tuple[pairs.Columns, Reading]:
    """The drawn rows as pairs, with how they were recognised. Raises DataError if there are fewer than two."""
    rows = load_rows(settings, token)
    columns = pairs.recognise(rows.column_names, settings.prompt_column, settings.chosen_column, settings.rejected_column)
    rows = rows.shuffle(seed=settings.seed)
    if settings.rows is not None:
        rows = rows.select(range(min(settings.rows, len(rows))))
    reading = pairs.read(rows, columns)
    if len(reading.pairs) < 2:
        raise DataError(f"{reading.in_words()} At least two pairs are needed: check the columns, or choose another dataset.")
    return columns, reading


def encode(tokenizer: "PreTrainedTokenizerBase", found: list[Pair], max_length: int) -> list[Encoded]:
    """Each pair as the model will see it, cut at `max_length` tokens; scored answers may be left empty by the cut."""
    def render(turns: list, **options) -> list[str]:
        return [tokenizer.apply_chat_template(messages, tokenize=False, **options) for messages in turns]

    def tokens(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    try:
        prompts = tokens(render([pair.prompt for pair in found], add_generation_prompt=True))
        chosen = tokens(render([pair.prompt + pair.chosen for pair in found]))
        rejected = tokens(render([pair.prompt + pair.rejected for pair in found]))
    except Exception as error:  # templates raise jinja's errors for turns they do not allow
        raise DataError(f"The chat template cannot hold these conversations: {str(error)[:200]}. "
                        "Set Chat template to chatml, or remove system turns from the data.") from error
    return [Encoded(_shared(prompt, better, worse), better[:max_length], worse[:max_length])
            for prompt, better, worse in zip(prompts, chosen, rejected, strict=True)]


def _shared(prompt: list[int], better: list[int], worse: list[int]) -> int:
    """Leading tokens of the prompt that both texts begin with: a token may merge across the boundary."""
    count = 0
    for one, two, three in zip(prompt, better, worse, strict=False):
        if not one == two == three:
            break
        count += 1
    return count


def keep_what_fits(found: list[Pair], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Reading:
    """The pairs of which something is left to learn after the cut at `max_length`.

    A prompt that fills `max_length` leaves an empty answer, whose mean log-probability is 0/0: one such row
    turns every weight of the adapter into NaN.
    """
    reading = Reading()
    for pair, row in zip(found, encode(tokenizer, found, max_length), strict=True):
        # The reference trainer may put a BOS and an EOS around what was counted here.
        if row.prompt + 2 >= min(max_length, len(row.chosen) + 2, len(row.rejected) + 2):
            reading.left_out[f"have a question that fills the maximum length of {max_length}"] += 1
        elif row.chosen == row.rejected:
            reading.left_out["have answers that are the same after the cut at the maximum length"] += 1
        else:
            reading.pairs.append(pair)
    if len(reading.pairs) < 2:
        raise DataError(f"{reading.in_words()} Raise the maximum length, or choose data with shorter questions.")
    return reading


def split(found: list[Pair], settings: DataSettings) -> Splits:
    """The last pairs of the drawn order are held out: at least one of each kind if a share is asked for."""
    if settings.held_out == 0:
        return Splits(found, [])
    count = min(max(1, round(len(found) * settings.held_out)), len(found) - 1)
    return Splits(found[:-count], found[-count:])


def write_pairs(path: Path, found: list[Pair]) -> None:
    """The pairs as JSONL, one explicit conversational row a line."""
    with open(path, "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(pair.row(), ensure_ascii=False) + "\n" for pair in found)
