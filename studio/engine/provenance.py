"""What a run writes down of its base and pairs for the card: the base's licence, commits of datasets, languages of the answers."""

from collections import Counter

from huggingface_hub import HfApi

from studio import names
from studio.engine import data, hub
from studio.events import Gathered
from studio.preferences.language import language_of
from studio.settings import PRACTICE, Settings

LOOKED_AT = 1000
"""Answers by which the languages of a set are told."""


def gathered(settings: Settings, reading: data.Reading, token: str | None) -> Gathered:
    """Asks the Hub for the base's licence, and looks at up to twice LOOKED_AT pairs, evenly spread."""
    name = settings.model.name
    base = None if name == PRACTICE or names.is_path(name) else name
    found, languages = reading.pairs, Counter()
    looked_at = range(0, len(found), max(1, len(found) // LOOKED_AT))
    for place in looked_at:
        languages[language_of(str(found[place].chosen[-1].get("content") or ""))] += 1
    languages.pop("", None)
    commits = {one.part.source: one.source.commit for one in reading.stream.opened if one.source.commit}
    return Gathered(hub.licence(HfApi(token=token), base), commits, dict(languages.most_common()), len(looked_at))
