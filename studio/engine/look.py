"""One pair as the model reads it: python -m studio.engine.look, the request on standard input.

Request: {"settings": Settings, "pair": prompt, chosen and rejected, "token": ...}.
Answer: the fields of `studio.preview.Tokens`, or {"error": words}.
"""

import json
import os
import sys
from collections.abc import Callable

from studio.engine import bounds, tokenizers_only
from studio.errors import explain
from studio.preferences.pairs import Pair
from studio.redaction import redact
from studio.seal import seal
from studio.settings import Settings

BROKEN = "\ufffd"
"""What stands for bytes that are no character."""
SECONDS = 60
"""For the tokens of one pair: a tokenizer that needs longer will not come back."""
LONGEST_SPREAD = 16
"""Tokens that can only together be text: a character has up to four bytes, and a token may end one and begin the next."""


def look(request: dict) -> dict:
    """The answer to a request; whatever goes wrong becomes words."""
    from studio.engine import tokens, vocabulary  # transformers comes with them, which only this program imports without torch

    settings = Settings(**request["settings"])
    try:
        tokenizer = vocabulary.load_tokenizer(settings.model, request.get("token"))
        with bounds.bounded(f"Making tokens of this pair with the tokenizer of {settings.model.name}", SECONDS):
            [pair] = tokens.encoded([Pair.of_row(request["pair"])], tokenizer)
    except Exception as error:
        return {"error": redact(explain(error, settings.model.name), [request.get("token") or ""])}
    chosen, rejected = (texts(list(map(int, ids)), tokenizer.decode) for ids in (pair.chosen, pair.rejected))
    return {"prompt": pair.prompt, "chosen": chosen, "rejected": rejected, "max_length": settings.training.max_length,
            "seal": seal(tokenizer.chat_template)}


def texts(ids: list[int], decode: Callable[[list[int]], str]) -> list[str | None]:
    """Each token's own text, white space included, and not what it becomes beside others.

    Where a character's bytes are spread over tokens, the first of those that only together are text has all of it, and the others
    have None.
    """
    found: list[str | None] = []
    while len(found) < len(ids):
        start = len(found)
        text, end = decode(ids[start : start + 1]), start + 1
        if BROKEN in text:
            whole = next((stop for stop in range(start + 2, min(start + LONGEST_SPREAD, len(ids)) + 1)
                          if BROKEN not in decode(ids[start:stop])), end)  # none: the text itself holds that character
            text, end = decode(ids[start:whole]), whole
        found += [text, *[None] * (end - start - 1)]
    return found


if __name__ == "__main__":
    tokenizers_only.import_transformers()
    # The libraries print progress; the answer must be the only thing on the real standard output.
    answer_to = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr
    bounds.ends_with(lambda words: (print(json.dumps({"error": words}), file=answer_to, flush=True), bounds.leave(0)))
    print(json.dumps(look(json.load(sys.stdin))), file=answer_to, flush=True)
