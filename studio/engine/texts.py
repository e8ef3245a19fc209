"""Pairs -> the texts that the model reads: a few at once, each through the chat template with its tools, and what was lost on the way."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from transformers import PreTrainedTokenizerBase

from studio.engine import fidelity
from studio.engine.rendering import Refusal, render
from studio.errors import DataError
from studio.preferences.pairs import Message, Pair

AT_ONCE, CHARACTERS_AT_ONCE = 500, 2_000_000
"""Pairs rendered and tokenized together, and characters of what they say; a longer pair is taken alone."""


def batches(found: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The pairs in their order, as many at once as fit in memory whatever their length."""
    batch, characters = [], 0
    for pair in found:
        size = len(json.dumps(pair.row()))
        if batch and (len(batch) == AT_ONCE or characters + size > CHARACTERS_AT_ONCE):
            yield batch
            batch, characters = [], 0
        batch.append(pair)
        characters += size
    if batch:
        yield batch


def rendered(found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase,
             moment: datetime | None = None) -> tuple[list[str], list[str], list[str]]:
    """The three texts of each pair: the question up to where an answer begins, and the question with each answer."""
    def each(talks: list[list[Message]], **options) -> list[str]:
        texts = [""] * len(talks)
        for places in by_tools.values():
            tools = found[places[0]].tools or None
            written = render(tokenizer, [talks[place] for place in places], moment, tools=tools, **options)
            for place, text in zip(places, written, strict=True):
                texts[place] = text
        return texts

    by_tools: dict[str, list[int]] = {}
    for place, pair in enumerate(found):
        by_tools.setdefault(json.dumps(pair.tools, default=str) if pair.tools else "", []).append(place)
    try:
        return (each([pair.prompt for pair in found], add_generation_prompt=True), each([pair.prompt + pair.chosen for pair in found]),
                each([pair.prompt + pair.rejected for pair in found]))
    except Refusal as error:
        raise DataError(f"The chat template cannot hold these conversations: {error}. "
                        "Set Chat template to chatml, or remove system turns from the data.") from error


def losses(found: Sequence[Pair], texts: tuple[list[str], list[str], list[str]], tokenizer: PreTrainedTokenizerBase,
           moment: datetime | None) -> list[int]:
    """What the template left out of each pair. An answer of which every piece is lost is compared with one that says nothing."""
    lost = [fidelity.losses(pair, three) for pair, three in zip(found, zip(*texts, strict=True), strict=True)]
    for place, pair in enumerate(found):
        for side in fidelity.emptied(pair, lost[place]) if lost[place] else ():
            answer, text = getattr(pair, side), texts[list(fidelity.SIDES).index(side)][place]
            with suppress(Refusal):
                if render(tokenizer, pair.prompt + fidelity.blank(answer), moment, tools=pair.tools or None) == text:
                    lost[place] |= fidelity.EMPTY
    return lost
