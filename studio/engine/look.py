"""The first pairs of a dataset as one JSON line: python -m studio.engine.look, the request on standard input.

Request: {"data": DataSettings, "token": ..., "first": n}. Answer: the fields of `studio.preview.Preview`, or {"error": words}.
"""

import json
import os
import sys

from studio.engine import data
from studio.errors import explain
from studio.settings import DataSettings


def look(request: dict) -> dict:
    """The answer to a request; whatever goes wrong becomes words."""
    settings = DataSettings(**request["data"])
    try:
        columns, reading = data.read(settings, request.get("token"))
    except Exception as error:
        return {"error": explain(error, settings.source)}
    return {"columns": columns.in_words(), "counts": reading.in_words(), "usable": len(reading.pairs),
            "pairs": [pair.row() for pair in reading.pairs[: request["first"]]]}


if __name__ == "__main__":
    # The libraries print progress; the answer must be the only thing on the real standard output.
    answer_to = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    sys.stdout = sys.stderr
    print(json.dumps(look(json.load(sys.stdin))), file=answer_to, flush=True)
