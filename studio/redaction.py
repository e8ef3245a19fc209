"""Secrets blotted out of whatever is shown, said or written: those that are known, and all that looks like one."""

import re
from collections.abc import Iterable
from urllib.parse import quote

BLOT = "[token]"
COLOUR = r"(?:\x1b\[[\d;]*+m)*+"
AFTER_COLOUR = r"(?<=\dm)|(?<=\[m)"
"""What follows a colour follows a letter, the m at its end, and begins a word all the same."""
QUOTE = rf"{COLOUR}[\"']?+{COLOUR}"
"""Possessive: what was taken is not given back, or many colours in a row would be divided in all ways that there are."""
SHORTEST = 6
"""Characters of a secret; anything shorter would blot out words."""

PATTERNS = [(re.compile(pattern), text) for pattern, text in (
    # The Hub's tokens, also right behind a colour or a letter; those of its sign-in hold a JSON web token.
    (r"hf_(?:oauth|jwt)_[\w.~-]{8,}|(?<![A-Za-ln-z0-9])hf_(?:(?=[a-z]*[A-Z\d])[A-Za-z0-9]{8,}|[a-z]{16,})|hf_[A-Za-z0-9]{20,}", BLOT),
    (rf"(?:\b|{AFTER_COLOUR})eyJ[\w-]{{8,}}\.[\w-]{{8,}}(?:\.[\w-]*)?", BLOT),
    # Headers: all of a cookie, what follows the scheme of an authorization.
    (rf"((?i:set-cookie|cookie){QUOTE}\s*[:=]\s*)(?:\"[^\"\n]*\"|'[^'\n]*'|b'[^'\n]*'|[^\n\"']+)", rf"\1{BLOT}"),
    (rf"((?i:authorization){QUOTE}\s*[:=,]\s*{QUOTE}(?:(?i:bearer|basic|token)\s+)?{COLOUR})(?!\[token\])[^\s\"',;\x1b]+", rf"\1{BLOT}"),
    (rf"((?:\b|{AFTER_COLOUR})(?i:bearer)\s+{QUOTE})(?=[\w.~+/-]*\d|[\w.~+/-]{{20}})[\w.~+/-]{{8,}}=*", rf"\1{BLOT}"),
    (rf"((?:\b|{AFTER_COLOUR})Basic\s+{QUOTE})(?=[\w+/]*[\d=])[\w+/]{{8,}}={{0,2}}", rf"\1{BLOT}"),
    # user:password@ in an address.
    (r"(?<=://)[^\s/@\"'<>]+@", f"{BLOT}@"),
    # key=value, where the value holds letters and digits like nothing that is said of tokens.
    (rf"((?:(?<![A-Za-z])|{AFTER_COLOUR})(?:(?i:api[_-]?key|access[_-]?token|refresh[_-]?token|client[_-]?secret|password|passwd|secret)|(?<!_)(?i:token))"
     rf"{QUOTE}\s*[:=]\s*{QUOTE})(?=[\w.~+/-]*\d)(?=[\d.~+/-]*[A-Za-z])[\w.~+/-]{{8,}}=*", rf"\1{BLOT}"),
)]


def redact(text: str, known: Iterable[str] = ()) -> str:
    """The text with everything blotted out that looks like a credential, and whatever is `known` to be one."""
    for secret in known:
        for form in {secret, quote(secret, safe="")} if len(secret) >= SHORTEST else ():
            text = text.replace(form, BLOT)
    for pattern, instead in PATTERNS:
        text = pattern.sub(instead, text)
    return text
