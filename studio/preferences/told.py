"""A pair as its checks look at it: what it says, and plain forms of that, each worked out once however many checks ask."""

from functools import cached_property
from hashlib import blake2b

from studio.preferences.findings import Seen, said
from studio.preferences.language import language_of
from studio.preferences.pairs import Message


def key_of(text: str) -> bytes:
    """Eight bytes that stand for a text, the same in every process."""
    return _digest(text.encode(errors="surrogatepass"))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()


class Text:
    """What some turns say. For comparing there are its `words`, in lower case, and these as `plain` text, with its `key`."""

    def __init__(self, turns: list[Message]):
        self.said = said(turns)

    @cached_property
    def words(self) -> list[str]:
        return self.said.lower().split()

    @cached_property
    def plain(self) -> str:
        return " ".join(self.words)

    @cached_property
    def key(self) -> bytes:
        return key_of(self.plain)

    @cached_property
    def language(self) -> str:
        return language_of(self.said)


class Told(Seen):
    """A pair that has been seen, with its three texts."""

    @classmethod
    def of(cls, seen: Seen) -> "Told":
        """The same pair with its texts; one that has them already is itself."""
        return seen if isinstance(seen, cls) else cls(*seen)

    @cached_property
    def question(self) -> Text:
        return Text(self.pair.prompt)

    @cached_property
    def better(self) -> Text:
        return Text(self.pair.chosen)

    @cached_property
    def worse(self) -> Text:
        return Text(self.pair.rejected)

    @cached_property
    def everything(self) -> str:
        """All that the pair says, for what is looked for everywhere."""
        return f"{self.question.said}\n{self.better.said}\n{self.worse.said}"

    @cached_property
    def hash(self) -> int:
        """A number for the pair, compared plainly."""
        return hash_of(self.question, self.better, self.worse)


def hash_of(*texts: Text) -> int:
    """A number of 64 bits for some texts in this order, compared plainly."""
    return int.from_bytes(texts[0].key if len(texts) == 1 else _digest(b"".join(text.key for text in texts)), "little")
