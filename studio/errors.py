"""What can go wrong, in words: each error is two sentences, what happened and what to do.

The table at the end turns known failures of the libraries into such sentences. It matches on
class names and message fragments, so that this module needs none of the libraries.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from studio.redaction import redact


class StudioError(Exception):
    """A refusal or failure whose text is meant for the person at the page."""


class SettingsError(StudioError):
    """All complaints about a form or a file at once, by field name ("training.beta")."""

    def __init__(self, problems: dict[str, str]):
        self.problems = problems
        super().__init__(" ".join(f"{name}: {text}" for name, text in problems.items()))


class BusyError(StudioError):
    """The job is already running."""


class DataError(StudioError):
    """The pairs cannot be read or cannot be trained on."""


class EncodingDoubt(DataError):  # noqa: N818 - nothing is wrong with the file
    """A text file could be in several encodings. `readings` are (encoding, its name in words, a piece of the text as it reads)."""

    def __init__(self, path: Path, line: int, readings: list[tuple[str, str, str]]):
        self.path, self.readings = path, readings
        each = "; ".join(f"in {name} ({encoding}) it reads “{sample}”" for encoding, name, sample in readings)
        super().__init__(f"{path.name}, line {line}, is not UTF-8, and which encoding it is in is not certain: {each}. "
                         "Choose the one that reads right under Data.")


class BaseModelError(StudioError):
    """The base cannot be trained, whatever else is chosen: it comes quantized, is of another kind, or has no vocabulary."""


class NoSpaceError(StudioError):
    """The disk cannot hold what the job is about to write."""


@dataclass(frozen=True)
class Known:
    """One known failure: the exception class (any in its ancestry), what tells it from its siblings, our words.

    `fragment` is looked for in the error's text. A fragment of digits is an HTTP status, or its beginning ("50" for
    all of 500 to 509), and is compared with the answer's status alone: addresses and request ids are full of digits.
    """

    exception: str
    fragment: str
    words: str


NO_NAME = "The name of the Hub could not be looked up. Check this machine's network and its DNS, then start again."
NO_PROXY = "The proxy between this machine and the Hub lets nothing through. Check HTTPS_PROXY and its password, then start again."
NO_ANSWER = "The Hub did not answer in time. Start again in a few minutes."

KNOWN = (
    Known("GatedRepoError", "", "{repo} is gated and this token has no access to it. "
          "Open huggingface.co/{repo}, press Request access, then start again with a token of that account."),
    Known("RepositoryNotFoundError", "401", "{repo} was not found, or it is private and no valid token was given. "
          "Check the spelling, or enter a token that can read it."),
    Known("RepositoryNotFoundError", "", "{repo} was not found on the Hub. "
          "Check the spelling (owner/name); for a private one, enter a token that can read it."),
    Known("RevisionNotFoundError", "", "{repo} has no such revision. Leave the revision empty to use the newest."),
    Known("DatasetNotFoundError", "gated", "The dataset {repo} is gated and this token has no access to it. "
          "Request access on its Hub page, then start again with a token of that account."),
    Known("DatasetNotFoundError", "", "The dataset {repo} was not found on the Hub. "
          "Check the spelling (owner/name); for a private one, enter a token that can read it."),
    Known("LocalTokenNotFoundError", "", "The Hub asked for a token and none was given. "
          "Create one at huggingface.co/settings/tokens and enter it in the token field."),
    Known("HfHubHTTPError", "storage limit", "The account's storage on the Hub is full. "
          "Free some there, or push a public repository."),
    Known("HfHubHTTPError", "401", "The Hub did not accept the token. "
          "Create a new one at huggingface.co/settings/tokens and enter it again."),
    Known("HfHubHTTPError", "403", "The token may not do this on the Hub. "
          "Use a token with write access to that account or organisation."),
    Known("HfHubHTTPError", "402", "The Hub asks for a paid plan for this. Choose another account or organisation."),
    Known("HfHubHTTPError", "429", "The Hub is limiting requests at the moment. Wait a few minutes and try again; nothing is lost."),
    Known("HfHubHTTPError", "50", "The Hub had a problem of its own. Wait a few minutes and try again; nothing is lost."),
    Known("OfflineModeIsEnabled", "", "{repo} is not on this machine and offline mode is on. "
          "Unset HF_HUB_OFFLINE, or download it first."),
    Known("HfHubHTTPError", "407", NO_PROXY),
    Known("ProxyError", "", NO_PROXY),
    *(Known(wrapper, fragment, words) for wrapper in ("LocalEntryNotFoundError", "ConnectError") for fragment, words in (
        ("Name or service not known", NO_NAME), ("name resolution", NO_NAME), ("Timeout", NO_ANSWER))),
    Known("LocalEntryNotFoundError", "", "{repo} is not on this machine and the Hub cannot be reached. "
          "Check the network connection, then start again."),
    Known("ConnectError", "", "The Hub cannot be reached. Check the network connection, then start again."),
    Known("ConnectionError", "", "The Hub cannot be reached. Check the network connection, then start again."),
    Known("TimeoutException", "", NO_ANSWER),
    Known("TransportError", "", "The connection to the Hub broke. Check the network, then start again; nothing is lost."),
    Known("OutOfMemoryError", "", "The GPU ran out of memory. "
          "Halve the batch and double the accumulation (the result stays the same), or lower the maximum length."),
    Known("MemoryError", "", "The machine ran out of memory. Lower the maximum length, or choose a smaller model."),
    Known("ImportError", "bitsandbytes", "Quantization needs the package bitsandbytes, which does not work here. "
          "Choose no quantization, or install bitsandbytes."),
    Known("ValueError", "trust_remote_code", "{repo} needs to run code of its own, which the studio does not do. "
          "Choose a model that transformers supports itself."),
    Known("ValueError", "contains custom code", "{repo} needs to run code of its own, which the studio does not do. "
          "Choose a model that transformers supports itself."),
    Known("ValueError", "does not recognize this architecture", "{repo} is no model that this studio's transformers knows. "
          "Choose another, or install a newer transformers."),
    Known("RuntimeError", "ignore_mismatched_sizes", "{repo} holds weights of another size than its config says. "
          "Fetch it again, or choose another model."),
    Known("SafetensorError", "", "{repo} holds a safetensors file that is damaged. Fetch it again, or choose another model."),
    Known("ValueError", "NaNs detected in the merged weights", "The adapter holds numbers that are not finite, so it cannot be "
          "merged. Train again with a lower learning rate or with bfloat16 as compute type."),
    Known("ValueError", "Target modules", "The adapter's target modules are not in this model. "
          "Use all-linear, or name modules that it has."),
    Known("OSError", "does not appear to have a file named", "{repo} holds no model that can be read. "
          "Choose a model repository with safetensors weights and a config.json."),
    Known("OSError", "is not a valid model identifier", "{repo} was not found on the Hub. "
          "Check the spelling (owner/name); for a private one, enter a token that can read it."),
)


def explain(error: BaseException, repo: str = "The repository") -> str:
    """Two sentences for any exception: its own if it is ours, else the table's, else its name and text.

    Library errors often wrap the telling one, so the causes are looked at too, innermost last. What the Hub answered comes
    first: its client makes of it that the Hub could not be reached.
    """
    chain = list(_causes(error))
    for link in chain:
        if isinstance(link, StudioError):
            return redact(str(link))
        if _disk_is_full(link):
            return "The disk is full. Free some space, then start again; what was saved before is untouched."
    answers = [link for link in chain if getattr(link, "response", None) is not None]
    for link in answers + chain:
        ancestry = {cls.__name__ for cls in type(link).__mro__}
        for known in KNOWN:
            if known.exception in ancestry and _fits(link, known.fragment):
                return known.words.format(repo=redact(repo))
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {redact(first_line[:300]).rstrip('.')}. The full story is in the worker's log."


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_is_full(error: BaseException) -> bool:
    """Whether an exception, or what it came from, is a write that failed for want of space."""
    return any(_disk_is_full(link) for link in _causes(error))


def _disk_is_full(error: BaseException) -> bool:
    """Whether a write failed for want of space; safetensors says it in text, from Rust."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return type(error).__name__ == "SafetensorError" and any(f"os error {number})" in str(error).lower() for number in FULL)


def _fits(error: BaseException, fragment: str) -> bool:
    """Whether the error's text holds the fragment, or its HTTP status begins so where the fragment is digits."""
    if not fragment.isdigit():
        return fragment in str(error)
    return str(getattr(getattr(error, "response", None), "status_code", "")).startswith(fragment)


def _causes(error: BaseException | None):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

