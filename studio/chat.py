"""The page's end of the chat: two candidates answer the same question, from a process that holds their base.

The process is `python -m studio.engine.chat RUN`. It starts with the first question, ends by itself when nobody
asks for a while, which frees the memory, and dies with this process. Its output that is no answer is in chat.log.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from studio import candidates, credentials, output
from studio.errors import SettingsError, StudioError
from studio.jobs import PROJECT
from studio.preferences.pairs import Message
from studio.runs import Run

IDLE_SECONDS = 600
HEARTBEAT_SECONDS = 0.5
"""An answer is yielded at least this often, changed or not: whoever has left is noticed then."""

LIMITS = {"temperature": (0, 5), "top_p": (0.01, 1), "max_new_tokens": (1, 100_000), "repetition_penalty": (0.5, 5),
          "seed": (0, 2**32 - 1)}
WHOLE = ("max_new_tokens", "seed")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Raises SettingsError with every complaint, by field name.

    Temperature 0 takes the likeliest token; the repetition penalty counts the answer only, not the question;
    without a seed every answer is drawn anew.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 256
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self):
        given = {name: value for name, value in asdict(self).items() if not (name == "seed" and value is None)}
        complaints = {name: text for name, value in given.items() if (text := _complaint(name, value))}
        if complaints:
            raise SettingsError(complaints)
        for name, value in given.items():  # a form may hand over 200.0 tokens at temperature 1, without its point
            object.__setattr__(self, name, int(value) if name in WHOLE else float(value))


def _complaint(name: str, value: object) -> str:
    lowest, highest = LIMITS[name]
    if value is None or value == "":
        return "This is empty. Enter a value."
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{str(value)[:60]!r} does not fit here. Enter a number."
    if not lowest <= value <= highest:
        return f"{value} is out of range. Enter a number from {lowest} to {highest}."
    if name in WHOLE and value != int(value):
        return f"{value} does not fit here. Enter a whole number."
    return ""


@dataclass(frozen=True)
class Answers:
    """What the two have said so far. `done` when neither will say more."""

    first: str = ""
    second: str = ""
    together: bool | None = None
    """Whether both speak at once, or in turn; None before that is known."""
    done: bool = False
    note: str = ""
    """What was asked and is not read, in words."""


@dataclass(frozen=True)
class Ready:
    """What answers: on which device, loaded in how many seconds."""

    device: str
    seconds: float


class Chat:
    """Asks candidates that share one run's base; asking about another run ends the process of the one before.

    Questions that come at the same time wait for their turn.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS):
        self.idle_seconds = idle_seconds
        self._turn = threading.Lock()
        self._process: _Process | None = None

    @property
    def ready(self) -> Ready | None:
        """What answers, once it is loaded; None before, and after it has ended."""
        return self._process.ready if self._process and self._process.alive else None

    @property
    def pid(self) -> int | None:
        """The process that holds the model, while there is one."""
        return self._process.pid if self._process and self._process.alive else None

    def ask(self, run: Run, pair: candidates.Pair, talks: tuple[list[Message], list[Message]], sampling: Sampling,
            secrets: dict[str, str] | None = None) -> Iterator[Answers]:
        """The answers of a pair as they grow. `talks` holds the talk that each has had, and both end with the same question.

        Closing the iterator ends the answers after the present token. Raises StudioError when there can be no answer.
        Secrets (the Hub token) go through a pipe: never an argument, a file or the environment.
        """
        if not run.adapter.is_dir():
            raise StudioError(f"Run {run.name} has no adapter yet. Let it finish or stop it, then talk to it.")
        while not self._turn.acquire(timeout=HEARTBEAT_SECONDS):
            yield Answers()
        try:
            yield from self._process_of(run, secrets).answers(pair, talks, sampling)
        except _LeftIdle:  # in the very moment of the question
            yield from self._process_of(run, secrets).answers(pair, talks, sampling)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the process and free its memory. An answer under way ends in an error; the next question starts anew."""
        if self._process:
            self._process.close()

    def _process_of(self, run: Run, secrets: dict[str, str] | None) -> "_Process":
        if self._process and not (self._process.run == run and self._process.alive):
            self._process.close()
            self._process = None
        if self._process is None:
            self._process = _Process(run, self.idle_seconds, secrets or {})
        return self._process


class _LeftIdle(Exception):
    """The process had ended for want of questions before it saw this one."""


class _Process:
    """The process that holds a run's model, and the line to it."""

    def __init__(self, run: Run, idle_seconds: float, secrets: dict[str, str]):
        self.run, self.ready = run, None
        secrets = credentials.handed_over(run.owner, secrets)
        self._asked, self._closed = 0, False
        self._heard: SimpleQueue[dict | None] = SimpleQueue()
        with output.into(run.folder / "chat.log", secrets.values()) as log:
            # A session of its own: Ctrl+C in the terminal is for the page, whose end closes the pipe.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studio.engine.chat", str(Path(run.folder).resolve()), "--idle", str(idle_seconds)],
                cwd=PROJECT, env=credentials.environment(run.owner), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True)
        threading.Thread(target=self._listen, daemon=True, name="chat").start()
        self._send(secrets)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def close(self) -> None:
        """End it at once; it has nothing to save."""
        self._closed = True
        self._process.kill()
        self._process.wait()

    def answers(self, pair: candidates.Pair, talks: tuple[list[Message], list[Message]], sampling: Sampling) -> Iterator[Answers]:
        """Ask, and yield what both have said so far until both are done."""
        self._asked += 1
        asked, latest = self._asked, Answers()
        self._send({"id": asked, "pair": [str(candidate) for candidate in pair], "talks": talks, "sampling": asdict(sampling)})
        try:
            while not latest.done:
                latest = self._next(asked, latest)
                yield latest
        finally:
            if not latest.done:
                self._send({"cancel": asked})

    def _next(self, asked: int, latest: Answers) -> Answers:
        """The answers after the next word of the process, or the same again when it says nothing for a while."""
        try:
            message = self._heard.get(timeout=HEARTBEAT_SECONDS)
        except Empty:
            return latest
        if message is None:
            self._heard.put(None)  # it stays ended, whoever asks
            raise self._end(asked)
        if "ready" in message:
            self.ready = Ready(**message["ready"])
        elif "id" not in message:  # it could not load, or an unforeseen error may have left it unsound
            self.close()
            raise StudioError(message["error"])
        elif message["id"] == asked:  # and not the rest of an answer that nobody waited for
            if "error" in message:
                raise StudioError(message["error"])
            first, second = message.get("texts", (latest.first, latest.second))
            return Answers(first, second, message.get("together", latest.together), message.get("done", False),
                           message.get("note", latest.note))
        return latest

    def _end(self, asked: int) -> Exception:
        code = self._process.wait()
        if self._closed:
            return StudioError("The chat was closed before the answer was complete. Ask again.")
        if code == 0:
            return _LeftIdle()
        killed = code == -signal.SIGKILL
        return StudioError("The process that answers was killed, most likely because the machine ran out of memory. "
                           "Free some memory, then ask again: it starts anew." if killed else
                           f"The process that answers ended unexpectedly (code {code}). "
                           "Ask again: it starts anew; chat.log in the run's folder tells more.")

    def _send(self, message: dict) -> None:
        with suppress(OSError):  # it has ended, which whoever waits for its words hears
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Pass on all it says, so that it never waits for a reader; then wait for it, lest it stays a zombie."""
        with suppress(ValueError):  # of a process that was killed the last line may be torn
            for line in self._process.stdout:
                self._heard.put(json.loads(line))
        self._process.wait()
        self._heard.put(None)
