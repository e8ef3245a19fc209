"""One pair as the model reads it: python -m studio.engine.look, the request on standard input.

Request: {"settings": Settings, "pair": prompt, chosen and rejected, "token": ...}.
Answer: the fields of `studio.preview.Tokens`, or {"error": words}.
"""

import json
import os
import sys

from studio.engine import tokens
from studio.engine.vocabulary import load_tokenizer
from studio.errors import explain
from studio.preferences.pairs import Pair
from studio.redaction import redact
from studio.seal import seal
from studio.settings import Settings


def look(request: dict) -> dict:
    """The answer to a request; whatever goes wrong becomes words."""
    settings = Settings(**request["settings"])
    try:
        tokenizer = load_tokenizer(settings.model, request.get("token"))
        [pair] = tokens.encoded([Pair.of_row(request["pair"])], tokenizer)
    except Exception as error:
        return {"error": redact(explain(error, settings.model.name), [request.get("token") or ""])}
    # One by one: a token's own text, white space included, and not what it becomes beside others.
    chosen, rejected = ([tokenizer.decode([int(token)]) for token in ids] for ids in (pair.chosen, pair.rejected))
    return {"prompt": pair.prompt, "chosen": chosen, "rejected": rejected, "max_length": settings.training.max_length,
            "seal": seal(tokenizer.chat_template)}


if __name__ == "__main__":
    # The libraries print progress; the answer must be the only thing on the real standard output.
    answer_to = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr
    print(json.dumps(look(json.load(sys.stdin))), file=answer_to, flush=True)
