"""Chat templates rendered within limits of time and memory: a template is a program that came with a model.

transformers runs it in a sandbox, where it reaches nothing but the talk; a sandbox does not make a loop end. Everything in the
engine that turns a talk into text comes through here. Only a process's main thread can be called back from a loop; a single
product of numbers of a billion digits not even that, so none is begun.

A template can ask for the time and for chance as well. It is told the date of the run it speaks for, and draws from a generator
that always begins alike: the same talk is the same text tomorrow, on another machine, in the chat and in training.
"""

import json
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from studio.errors import StudioError
from studio.preferences.pairs import Message

SECONDS = 30
"""For one call, which takes up to 500 talks; the slowest of known templates needs half a second for so many."""
ROOM = 2**30
"""Bytes that one call may take, and 16 for each character of the talks on top."""
LONGEST = 2**20
"""Characters of what one call may give, and 16 times those of the talks on top."""
ENDLESS = ("The model's chat template was ended after {0}: it is no template for talks. "
           "Choose another model, or set Chat template to chatml.")


LARGEST, MOST_POWER = 2**64, 64
"""Numbers that a template may multiply, and to which power it may raise them."""


class Refusal(ValueError):
    """The template does not take this talk; the text says why, in one line."""


class _TimeIsUpError(Exception):
    """The limit has passed while the template ran."""


def render(tokenizer: PreTrainedTokenizerBase, talks: list[Message] | list[list[Message]], moment: datetime | None = None,
           **options) -> str | list[str]:
    """A talk, or each of several, as text. `moment` is the date of the run that it is rendered for, and now where there is no run.

    The arguments of tool calls, which many files hold as JSON in a text, are handed over as values, as transformers' templates want
    them, and as they are to a template that refuses these. `tools` are descriptions of tools that can be called in all of the talks.
    Raises Refusal for a talk that the template does not take, StudioError where it has no end.
    """
    as_values = _with_arguments(talks)
    if as_values is not None:
        with suppress(Refusal):
            return _rendered(tokenizer, as_values, moment, **options)
    return _rendered(tokenizer, talks, moment, **options)


def _with_arguments(talks: list) -> list | None:
    """The talks with the arguments of tool calls as values; None where there is no call whose arguments are a text."""
    changed = False

    def turn_of(turn: Message) -> Message:
        nonlocal changed
        calls = turn.get("tool_calls")
        if not isinstance(calls, list):
            return turn
        made = []
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            values = parsed(function.get("arguments")) if isinstance(function, dict) else None
            if isinstance(values, dict) and values is not function["arguments"]:
                changed = True
                call = {**call, "function": {**function, "arguments": values}}
            made.append(call)
        return {**turn, "tool_calls": made}

    made = [[turn_of(turn) for turn in talk] if isinstance(talk, list) else turn_of(talk) for talk in talks]
    return made if changed else None


def parsed(arguments: Any) -> Any:
    """A call's arguments as values: what is written as JSON is read."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _rendered(tokenizer: PreTrainedTokenizerBase, talks: list, moment: datetime | None, **options) -> str | list[str]:
    characters = sum(map(_size, talks)) + len(json.dumps(options.get("tools") or "", default=str)) * len(talks)
    try:
        with _limits(ROOM + 16 * characters), _same_at_any_time(moment):
            text = tokenizer.apply_chat_template(talks, tokenize=False, **options)
    except _TimeIsUpError:
        raise StudioError(ENDLESS.format(f"{SECONDS} seconds")) from None
    except MemoryError:
        raise StudioError(ENDLESS.format("it had taken a gigabyte of memory")) from None
    except Exception as error:  # jinja's own, and any that an expression in a template can raise
        raise Refusal((str(error).strip() or type(error).__name__).splitlines()[0][:200]) from error
    if (len(text) if isinstance(text, str) else sum(map(len, text))) > LONGEST + 16 * characters:
        raise StudioError(ENDLESS.format("it had written many times what it was given"))
    return text


def _size(talk: list[Message] | Message) -> int:
    """Characters of what a talk, or a turn of one, says."""
    if isinstance(talk, list):
        return sum(map(_size, talk))
    return sum(len(value if isinstance(value, str) else json.dumps(value, default=str)) for value in talk.values() if value)


@contextmanager
def _limits(memory: int) -> Iterator[None]:
    """Raises _TimeIsUpError within after SECONDS, and MemoryError where more is asked for. A timer that ran before runs on."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("Templates are rendered in the main thread: no other can be called back from a loop.")
    began, before = time.monotonic(), signal.signal(signal.SIGALRM, _time_is_up)
    others, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, 10 * SECONDS)  # should it hang where nothing is called back, the process ends
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + memory
    try:
        if limit > memory and (soft == resource.RLIM_INFINITY or limit < soft):
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)
        if others:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, others - (time.monotonic() - began)))


class _Clock:
    """Stands in for the class `datetime` while a template runs: its present is one moment."""

    def __init__(self, moment: datetime):
        self._moment = moment

    def now(self, *_) -> datetime:
        return self._moment


@contextmanager
def _same_at_any_time(moment: datetime | None) -> Iterator[None]:
    """Let a template read `moment` from the clock, and always the same from chance. What else draws at random is not disturbed."""
    clock, drawn = chat_template_utils.datetime, random.getstate()
    chat_template_utils.datetime = _Clock(moment or datetime.now())  # transformers turns a clock that is handed over into text
    random.seed(0)
    try:
        yield
    finally:
        chat_template_utils.datetime = clock
        random.setstate(drawn)


def _time_is_up(*_) -> None:
    raise _TimeIsUpError


def _address_space() -> int:
    """Bytes of addresses that this process has; 0 where the system does not say, and then only time is limited."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


# --- what the sandbox multiplies --------------------------------------------------------------------------------------


def _product(left: Any, right: Any) -> Any:
    """The product of small numbers, or a text or list repeated that stays short. Raises SecurityError for others."""
    repeats = any(isinstance(side, Sequence) for side in (left, right))
    one, other = (len(side) if isinstance(side, Sequence) else abs(side) for side in (left, right))
    if one * other > LONGEST if repeats else max(one, other) > LARGEST:
        raise SecurityError("It multiplies what is too large.")
    return left * right


def _power(number: Any, exponent: Any) -> Any:
    """A power of small numbers. Raises SecurityError for others."""
    if abs(number) > LARGEST or abs(exponent) > MOST_POWER:
        raise SecurityError("It multiplies what is too large.")
    return number ** exponent


# transformers makes its sandboxes of this class by itself.
ImmutableSandboxedEnvironment.intercepted_binops = frozenset({"*", "**"})
ImmutableSandboxedEnvironment.default_binop_table = ImmutableSandboxedEnvironment.default_binop_table | {
    "*": _product, "**": _power}
