"""Two candidates answering side by side from one loaded base: python -m studio.engine.chat RUN [--idle SECONDS].

One JSON object a line. The first line in holds the secrets, {"token": "hf_..."} or {}. Then come questions, each candidate
with a talk of its own, and cancellations, which end an answer after the present token:

    {"id": 1, "pair": ["base", "RUN@last"], "talks": [[messages], [messages]], "sampling": {"temperature": 0.7, ...}}
    {"cancel": 1}

Lines out, where an answer's lines hold all its text so far:

    {"ready": {"device": "cpu", "seconds": 2.1}}
    {"id": 1, "together": true}             false: they answer in turn
    {"id": 1, "note": "one sentence"}       what of the question the chat template leaves out, if anything
    {"id": 1, "texts": ["The capital", "Happy to"]}
    {"id": 1, "done": true}
    {"id": 1, "error": "two sentences"}     no answer to this one; the next may be asked
    {"error": "two sentences"}              the process ends: something could not be loaded, or nobody foresaw this

The process ends when its input does, at once, and when nobody has asked for the idle seconds.
"""

import argparse
import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from functools import partial
from pathlib import Path

from studio import gpu
from studio.candidates import Candidate
from studio.chat import IDLE_SECONDS, Ready, Sampling
from studio.engine import bounds, turn
from studio.engine.duet import Duet
from studio.engine.line import Inbox, Wire
from studio.engine.worker import Desk
from studio.errors import StudioError, explain
from studio.redaction import redact
from studio.runs import Run

# The libraries are imported inside functions, of duet.py too: stdout must be out of their reach first, and the end of the input heard.


def main() -> int:
    """The process, from the secrets to its end. Returns the exit code: 1 when it could not go on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS)
    asked = parser.parse_args()
    wire = Wire()
    desk = Desk(asked.run, json.loads(sys.stdin.readline() or "{}"))
    inbox = Inbox().open()
    bounds.ends_with(partial(_fail, wire))
    began = time.monotonic()
    try:
        gpu.take_one()
        held = turn.take(desk.folder, "chat")  # noqa: F841 (until this process ends)
        duet = Duet(Run(desk.folder), desk.token, desk.consent)
        wire.say(ready=asdict(Ready(duet.device, round(time.monotonic() - began, 1))))
        while (question := inbox.next(asked.idle)) is not None:
            first, second = map(Candidate.parse, question["pair"])
            duet.seat((first, second))  # where that fails, what is left of an adapter may stand on the base: a fresh process is sound
            wire.say(id=question["id"], together=not duet.in_turn_because)
            converse(wire, inbox, duet, question)
        return 0
    except BaseException as error:  # after an unforeseen one CUDA may be unusable: a fresh process is sure to be sound
        print(redact(traceback.format_exc(), desk.secrets.values()), file=sys.stderr, flush=True)
        wire.say(error=redact(explain(error, getattr(error, "studio_repo", "The repository")), desk.secrets.values()))
        return 1


def _fail(wire: Wire, words: str) -> None:
    """The last words of a process whose tokenizer does not come back."""
    wire.say(error=words)
    bounds.leave(1)


def converse(wire: Wire, inbox: Inbox, duet: Duet, question: dict) -> None:
    """Answer one question over the wire."""
    asked = question["id"]
    try:
        if not inbox.is_cancelled(asked):
            duet.answer(question["talks"], Sampling(**question["sampling"]),
                        lambda texts: wire.say(id=asked, texts=texts), lambda: inbox.is_cancelled(asked),
                        lambda words: wire.say(id=asked, note=words))
        wire.say(id=asked, done=True)
    except StudioError as error:
        wire.say(id=asked, error=str(error))


if __name__ == "__main__":
    os._exit(main())  # an orderly end could not be: a thread still holds stdin
