"""The card of an exported dataset: metadata the Hub can read, and where the pairs come from and what was done to them.

It says the same whenever it is asked (no dates, no paths of this machine), so that exporting twice changes nothing.
"""

from huggingface_hub import DatasetCardData

from studio.card import TAG, plain
from studio.engine.data import Opened, Stream
from studio.settings import PRACTICE

SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7),
         ("10M<n<100M", 10**8), ("100M<n<1B", 10**9))
"""The Hub's names for numbers of rows, each with what it stays below."""


def render(repo: str, stream: Stream, size: str, counts: dict[str, int], files: dict[str, str]) -> str:
    """The README of `repo`. For a stream that has been walked through; size in words, pairs by split, file by split."""
    parts = [_what_it_is(repo, size), _origin(stream), _usage(repo, files)]
    return f"---\n{metadata(sum(counts.values()), files).to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def metadata(pairs: int, files: dict[str, str]) -> DatasetCardData:
    """What the Hub reads of the card."""
    return DatasetCardData(
        tags=["orpo", "preference", TAG], size_categories=[next((name for name, most in SIZES if pairs < most), "1B<n<10B")],
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": path} for split, path in files.items()]}])


def _what_it_is(repo: str, size: str) -> str:
    return (f"# {plain(repo.split('/')[-1])}\n\n{size} Each is a prompt with a better and a worse answer (`prompt`, `chosen`, "
            "`rejected`), as lists of messages, for [ORPO](https://arxiv.org/abs/2403.07691) and other preference training. "
            "They were examined and cleaned in ORPO Studio.")


def _origin(stream: Stream) -> str:
    """Sources, how they were read, what became of their rows, what was edited."""
    told = [stream.in_words(), stream.account.in_words(), stream.editor.in_words()]
    if any(one.part.weight > 1 for one in stream.opened):
        told.append("Weights above 1 repeat pairs while training; here each is there once.")
    return "\n".join(["## Origin", "", *(f"- {_source(one)}" for one in stream.opened), "", *(plain(words) for words in told if words)])


def _source(one: Opened) -> str:
    """A source by a name that says nothing about this machine; a Hub dataset with the commit at which it was read."""
    if one.part.source == PRACTICE:
        return "The practice pairs of ORPO Studio"
    name, commit = plain(one.source.name), one.source.commit
    if not commit:
        return name
    parts = "".join(f", {what} {plain(value)}" for what, value in (("subset", one.part.subset), ("split", one.part.split)) if value)
    return f"[{name}](https://huggingface.co/datasets/{one.source.name}/tree/{commit}){parts}, at commit `{commit}`"


def _usage(repo: str, files: dict[str, str]) -> str:
    loads = "\n".join(f'{split} = load_dataset("{repo}", split="{split}")' for split in files)
    return f"## Use\n\n```python\nfrom datasets import load_dataset\n\n{loads}\n```"
