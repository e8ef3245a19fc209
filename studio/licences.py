"""What a base's licence asks of a model made from it: words in its card, the beginning of its name, a notice that goes with it.

Only what is known of a licence by its name on the Hub is said; of every other one, that it has to be read.
"""

import re
from dataclasses import dataclass

from studio import events

FILE = "NOTICE"
LLAMA = re.compile(r"(?:meta[-_ ]?)?llama[-_ ]?(\d(?:\.\d)?)", re.IGNORECASE)
META = "Copyright © Meta Platforms, Inc. All Rights Reserved."
BUILT_WITH_QWEN = ("qwen", "qwen-research", "tongyi-qianwen", "tongyi-qianwen-research")
FREE = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "unlicense")
"""Licences that ask for nothing beyond being named."""


@dataclass(frozen=True)
class Terms:
    """`name` in words; what has to be `shown`; the `prefix` of the model's name; a `notice` that goes with it. Empty for none."""

    name: str
    shown: str = ""
    prefix: str = ""
    notice: str = ""

    def fits(self, repo: str) -> bool:
        """Whether a repository's name begins as the licence asks; hyphens, underscores and capitals make no difference."""
        name, prefix = (re.sub(r"[-_ ]", "", text).casefold() for text in (repo.rsplit("/", 1)[-1], self.prefix))
        return name.startswith(prefix)

    def of_name(self) -> str:
        """What the licence asks of the name, in one sentence; empty where it asks for nothing."""
        if not self.prefix:
            return ""
        return (f"{self.name} of the base asks that a model made from it has a name that begins with “{self.prefix}”, "
                f"such as {self.prefix.replace(' ', '-')}-my-model, where it is distributed.")


def of(stated: dict[str, str] | None) -> Terms | None:
    """The terms of a licence as a model's card states it; None where none is stated, or it asks for nothing."""
    stated = stated or {}
    name = stated.get("license_name") or stated.get("license") or ""
    if not name or name.lower() in FREE:
        return None
    if found := LLAMA.match(name):
        return _llama(found[1])
    if name.lower().startswith("gemma"):
        return Terms("The Gemma licence", notice="Gemma is provided under and subject to the Gemma Terms of Use found at "
                                                "ai.google.dev/gemma/terms")
    if name.lower() in BUILT_WITH_QWEN:
        return Terms("The Qwen licence", shown="Built with Qwen")
    return Terms(f"The licence {name}")


def _llama(version: str) -> Terms:
    if version.startswith("2"):
        return Terms("The Llama 2 licence", notice="Llama 2 is licensed under the LLAMA 2 Community License, "
                                                  "Copyright (c) Meta Platforms, Inc. All Rights Reserved.")
    if version in ("3", "3.0"):
        return Terms("The Llama 3 licence", "Built with Meta Llama 3", "Llama 3",
                     f"Meta Llama 3 is licensed under the Meta Llama 3 Community License, {META}")
    return Terms(f"The Llama {version} licence", "Built with Llama", "Llama",
                 f"Llama {version} is licensed under the Llama {version} Community License, {META}")


def recorded(said: list[events.Event]) -> dict[str, str]:
    """The base's licence as a run wrote it down when it began; empty where it was not known."""
    found = events.last(said, events.Gathered)
    return dict(found.licence) if found else {}
