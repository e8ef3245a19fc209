"""What a model or a set of pairs may be called, known from the text alone: a name on the Hub, or a full path on this machine.

An address, a number that is one, a path that depends on where it is read from, an option, a token: each is refused as what it is.
Nothing is looked up, so nothing is asked.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from studio.redaction import redact

PRACTICE = "practice"
"""As a model or as pairs: the tiny model and the pairs that ship with the studio."""
FILE_TYPES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx")
"""Files of pairs."""

ON_HUB = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]{0,95}(?:/[A-Za-z0-9_][\w.-]{0,95})?(?<![.-])", re.ASCII)
USERS, TEMPORARY = "users", "temporary"
OWN = (USERS, TEMPORARY)
"""Folders that the studio makes beside the runs; whatever else it makes there is hidden, so that no name of a run's can be its name."""
FOLDER_OF_A_RUN = r"[a-z0-9][a-z0-9._-]{0,79}"
RUN = re.compile(rf"(?!(?:{'|'.join(OWN)})(?![a-z0-9._-])){FOLDER_OF_A_RUN}")
"""A run's name is a folder's name on every system, never a way out of the runs folder, and none of the studio's own folders."""
REVISION = re.compile(r"(?!.*\.\.)(?:[\w][\w./-]{0,199})?", re.ASCII)
NUMBER = r"(?:0x[0-9a-f]+|\d+)"
AN_ADDRESS = re.compile(rf"{NUMBER}(?:\.{NUMBER}){{0,3}}(?::\d+)?|[\w.-]+:\d+|\[.*\](?::\d+)?", re.IGNORECASE | re.ASCII)
HUB_HOSTS = ("huggingface.co", "hf.co")
OUTSIDE_LAYERS = {"lm_head", "embed_out", "output", "embed_tokens", "wte", "embed_in", "word_embeddings"}
"""What models call the embedding matrix and the head."""


def model(text: str) -> str:
    """The name of a model. Raises ValueError in two sentences for what can be none."""
    _refuse_what_is_no_name(text)
    if not is_path(text) and not ON_HUB.fullmatch(text):
        raise ValueError(f"{text[:80]!r} cannot be a model's name. Enter owner/name as on the Hub, or a folder by its full path.")
    return text


def source(text: str) -> str:
    """The name of a dataset or the path of a file. Raises ValueError in two sentences for what can be neither."""
    _refuse_what_is_no_name(text)
    if not is_path(text) and PurePosixPath(text).suffix.lower() in FILE_TYPES:
        raise ValueError(f"{text[:80]!r} is a file without the folder it is in. Enter its full path, or upload it.")
    if not is_path(text) and not ON_HUB.fullmatch(text):
        raise ValueError(f"{text[:80]!r} cannot be a dataset's name. Enter owner/name as on the Hub, or a file by its full path.")
    return text


def revision(text: str) -> str:
    """The name of a branch or tag, or a commit. Raises ValueError for what can be none."""
    if not REVISION.fullmatch(text):
        raise ValueError(f"{text[:80]!r} cannot be a revision. Enter a branch, a tag or a commit, or leave it empty.")
    return text


def repository(text: str) -> str:
    """The name of a repository to write to, or nothing. Raises ValueError in two sentences for what can be neither."""
    if text and not ON_HUB.fullmatch(text):
        raise ValueError(f"{text[:80]!r} cannot be a repository's name. Use letters, digits, single dots and hyphens, "
                         "such as my-checkpoints or owner/my-checkpoints.")
    return text


def run(text: str) -> str:
    """The name of a run, or nothing. Raises ValueError in two sentences for what can be neither."""
    if text in OWN:
        raise ValueError(f"{text!r} is the name of a folder of the studio's own. Enter a run's name as it stands in the list of runs.")
    if text and not RUN.fullmatch(text):
        raise ValueError(f"{text[:80]!r} cannot be a run's name. Enter it as it stands in the list of runs.")
    return text


def is_path(text: str) -> bool:
    """Whether a name is that of something on this machine."""
    return text.startswith("/")


def may_begin_one_on_the_hub(text: str) -> bool:
    """Whether more may be typed after this, and it is then the name of a dataset."""
    return bool(ON_HUB.fullmatch(text.removesuffix("/"))) and not AN_ADDRESS.fullmatch(text) and (
        PurePosixPath(text).suffix.lower() not in FILE_TYPES)


def refuse_paths_outside(names: Sequence[str], folders: Sequence[Path]) -> None:
    """Raises ValueError naming a path, links followed, that is in none of these folders. Names on the Hub pass."""
    for name in filter(is_path, names):
        found = Path(name).resolve()
        if not any(found.is_relative_to(folder.resolve()) for folder in folders):
            raise ValueError(f"{name[:200]!r} is on the studio's machine and not open to you. "
                             "Upload the file, or name what you mean by its name on the Hub.")


def _refuse_what_is_no_name(text: str) -> None:
    hidden = next((character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")), "")
    owner = text.split("/")[0]
    if hidden:
        raise ValueError(f"This name holds a character that cannot be seen (U+{ord(hidden):04X}). Type it by hand.")
    if "://" in text or text.startswith("//") or owner.lower().removeprefix("www.") in HUB_HOSTS:
        raise ValueError(f"This is an address and not a name. Enter {_named_in(text) or 'owner/name as on the Hub'}.")
    if redact(text) != text:
        raise ValueError("This looks like a token and not like a name. Enter it in the field for the Hub token.")
    if AN_ADDRESS.fullmatch(owner) or _is_an_ip(owner):
        raise ValueError(f"{text[:80]!r} is a machine's address and not a name. Enter owner/name as on the Hub.")
    if "\\" in text or re.match(r"[A-Za-z]:", text):
        raise ValueError(f"{text[:80]!r} is a path of Windows. Enter a full path of the machine that the studio runs on, from / on.")
    if text.startswith((".", "~", "$")) or ".." in PurePosixPath(text).parts:
        raise ValueError(f"{text[:80]!r} is a path that depends on where it is read from. Enter the full path, from / on.")
    if text.startswith("-"):
        raise ValueError(f"{text[:80]!r} is an option and not a name. Enter owner/name as on the Hub, or a full path.")


def _is_an_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _named_in(address: str) -> str:
    """owner/name, as an address of the Hub's own site has it."""
    try:
        found = urlsplit(address if "://" in address else f"https://{address.lstrip('/')}")
    except ValueError:
        return ""
    parts = [part for part in found.path.split("/") if part and part != "datasets"][:2]
    on_hub = (found.hostname or "").removeprefix("www.") in HUB_HOSTS
    return name if on_hub and len(parts) == 2 and ON_HUB.fullmatch(name := "/".join(parts)) else ""


def outside_layers(target_modules: str) -> list[str]:
    """Those of an adapter's target modules that are an embedding matrix or a head; all-linear leaves both out."""
    return sorted({name.strip().rsplit(".", 1)[-1] for name in target_modules.split(",")} & OUTSIDE_LAYERS)
