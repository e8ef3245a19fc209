"""Whose a Hub token is and what it may do, told as it is entered: from its looks, and by the Hub where it answers soon."""

from dataclasses import dataclass

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session

from studio.errors import StudioError

SECONDS = 3
"""Longest wait for an answer: somebody has just left the field."""
QUOTES = "\"'`“”‘’«»"
RIGHTS = {"read": "that can only read", "write": "that can write"}


@dataclass(frozen=True)
class Account:
    """What the Hub says of a token: whose it is, and its role: write, read, or fineGrained for rights of its own."""

    name: str
    role: str


def entered(text: str | None) -> dict[str, str]:
    """The secrets that a job is handed for what was entered; none for an empty field. Raises StudioError for what can be no token."""
    if words := complaint(text):
        raise StudioError(f"Hub token: {words}")
    token = (text or "").strip()
    return {"token": token} if token else {}


def complaint(text: str | None) -> str:
    """Why a text can be no token, and what to do; empty for one that can, and for none. Blanks around it do not matter."""
    token = (text or "").strip()
    if token.lower().startswith(("bearer ", "bearer:")):
        return "“Bearer” is not part of a token. Enter what comes after it."
    if token and (token[0] in QUOTES or token[-1] in QUOTES):
        return "This stands in quotation marks. Enter the token without them."
    if any(character.isspace() for character in token):
        return "This holds a space or a line break. Copy the token again, whole and alone."
    if odd := next((character for character in token if not "!" <= character <= "~"), ""):
        return f"This holds a character that no token has (U+{ord(odd):04X}). Copy the token again."
    return ""


def asked(token: str) -> Account | None:
    """The account behind a token; None for one that the Hub does not accept. Raises StudioError where it cannot be asked now."""
    try:
        answer = get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=build_hf_headers(token=token), timeout=SECONDS)
        if answer.status_code in (401, 403):
            return None
        answer.raise_for_status()
        told = answer.json()
        return Account(str(told["name"]), str(told["auth"]["accessToken"]["role"]))
    except Exception as error:  # offline, limited, too slow, or another answer
        raise StudioError("The Hub does not answer now. The token is tried when it is needed.") from error


def in_words(text: str | None, to_write: bool = False) -> tuple[str, str]:
    """What there is to say of what was entered: its kind (good, warn, bad or info) and the words, both empty for an empty field."""
    if words := complaint(text):
        return "bad", words
    token = (text or "").strip()
    if not token:
        return "", ""
    try:
        account = asked(token)
    except StudioError as error:
        return "info", str(error)
    if account is None:
        return "bad", ("The Hub does not accept this token: it has expired, was withdrawn, or lacks a letter. "
                       "Create a new one at huggingface.co/settings/tokens, or empty the field: what is public needs none.")
    if account.role == "read" and to_write:
        return "warn", (f"A token of {account.name} that can only read. "
                        "To push, create one with write access at huggingface.co/settings/tokens.")
    return "good", f"A token of {account.name} {RIGHTS.get(account.role, 'with rights of its own')}."


def refuse_one_that_only_reads(secrets: dict[str, str]) -> None:
    """Raises StudioError if the token that a job is handed cannot write, as far as the Hub tells now."""
    kind, words = in_words(secrets.get("token"), to_write=True)
    if kind in ("warn", "bad"):
        raise StudioError(f"Hub token: {words}")
