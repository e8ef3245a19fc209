"""The Hub's catalogue of datasets, asked while a person types. A Hub that does not answer finds nothing, quickly."""

import time
from dataclasses import dataclass, field

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session

from studio import names, pasted

SECONDS = 3
"""Longest wait for an answer."""
AFTER_A_FAILURE = 60
"""Seconds in which a Hub that could not be reached is not asked again."""
SHORTEST, MOST = 3, 8


def is_a_name(text: str) -> bool:
    """Whether a text may be (the beginning of) a dataset's name, neither a path nor an address."""
    return len(text) >= SHORTEST and not pasted.is_token(text, or_hex=True) and names.may_begin_one_on_the_hub(text)


@dataclass
class Catalogue:
    """Answers from the Hub, each asked for once."""

    _known: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    _silent_until: float = 0.0

    def like(self, text: str, token: str | None = None) -> list[tuple[str, int]]:
        """Names with their downloads of the datasets that match best, at most MOST; none for a path or without the Hub."""
        text = text.strip()
        if not is_a_name(text) or time.monotonic() < self._silent_until:
            return []
        if text in self._known and not token:  # what a token sees is not remembered
            return self._known[text]
        try:
            found = _search(text, token)
        except Exception:  # offline, refused, too slow: typing goes on
            self._silent_until = time.monotonic() + AFTER_A_FAILURE
            return []
        if not token:
            self._known[text] = found
        return found


def _search(text: str, token: str | None) -> list[tuple[str, int]]:
    """Asked once: the client's own `list_datasets` tries again for half a minute, which nobody who types waits for."""
    answer = get_session().get(f"{constants.ENDPOINT}/api/datasets", params={"search": text, "sort": "downloads", "limit": MOST},
                               headers=build_hf_headers(token=token or False), timeout=SECONDS)
    answer.raise_for_status()
    return [(one["id"], one.get("downloads") or 0) for one in answer.json()]
