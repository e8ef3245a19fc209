"""Tokens and keys where none belongs: pasted as a repository's name, a title, a question. They are refused before anything is kept.

Only what can be nothing else is taken for one, since these fields hold prose as well: the shapes that the services themselves give
their keys so that they are found where they should not be.
"""

import re
from typing import Any

from studio.errors import StudioError

WORDS = "This looks like a token or key, which others could read here. Take it out, and enter it only in the field that is for it."
TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_(?:(?:oauth|jwt)_[\w.~-]{8,}|[A-Za-z0-9]{20,}|(?=[a-z]*[A-Z\d])[A-Za-z0-9]{8,}|[a-z]{16,})|api_org_[A-Za-z]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}"
    r"|(?:sk|pk|rk)-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|wandb_v\d_\w{20,})", re.ASCII)
ALONE = re.compile(r"[0-9a-f]{40}", re.ASCII)
"""A key of W&B's older kind. Commits look the same, so it is one only where no commit can stand."""


def is_token(text: Any, or_hex: bool = False) -> bool:
    """Whether a value is a text that holds a token or key; `or_hex` where a text of forty hexadecimal digits can be no commit."""
    return isinstance(text, str) and bool(TOKEN.search(text) or (or_hex and ALONE.fullmatch(text.strip().rpartition("/")[2])))


def refuse(*texts: str | None) -> None:
    """Raises StudioError if any of these texts holds a token or key."""
    if any(map(is_token, texts)):
        raise StudioError(WORDS)

