"""The files of a base on this machine: fetched where they must be, looked through before anything is loaded, and known again.

Only safetensors, JSON, vocabularies and templates are fetched and read. What a repository holds beside them gets here only for a
person to look at, and what these few could say to have more loaded, or run, is refused.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import DryRunError, HfHubHTTPError

from studio import hub_access, model_files, names
from studio.engine.worker import about
from studio.errors import BaseModelError, StudioError
from studio.practice import MODEL as PRACTICE_MODEL
from studio.settings import PRACTICE, ModelSettings
from studio.shape import LARGEST_CONFIG, LARGEST_HEADER, PATIENCE

TEXTS = ["*.json", "*.jinja", "*.model", "*.txt"]
WEIGHTS = ["*.safetensors", *TEXTS]
"""What is fetched of a model's repository: no pickled weights, and no code but where somebody looks at it."""
CODE = ["*.py"]

SINGLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
SHAPING = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
           "num_key_value_heads", "head_dim", "hidden_act", "rope_theta", "rope_parameters", "rope_scaling", "sliding_window",
           "tie_word_embeddings")
"""What a config says that makes another model of the same weights."""
LOOKED_AT = 256
"""Bytes of each tensor's beginning and end by which weights are known again."""


@dataclass(frozen=True)
class Origin:
    """Which weights these are: the base's name, its commit if it came from the Hub, and a hash by which to know them again."""

    name: str
    commit: str
    weights: str


def of(settings: ModelSettings, token: str | None = None, weights: bool = True, code: bool = False) -> Path:
    """The folder with a base's files, fetched as far as they are not there; without `weights` only what texts need.

    With `code` its Python files are fetched as well, which nothing here runs. Raises StudioError for what is not a model, for one
    that the studio cannot train (before its weights are fetched), and for weights that could run code when they are read.
    """
    folder = _folder(settings, token, TEXTS + CODE * code)
    _refuse_what_cannot_be_trained(settings, folder, token)
    if weights:
        folder = _folder(settings, token, WEIGHTS + CODE * code)
        _refuse_other_than_safetensors(folder, settings.name)
    return folder


def _refuse_what_cannot_be_trained(settings: ModelSettings, folder: Path, token: str | None) -> None:
    """Raises StudioError for a base that comes quantized or is not a causal language model, as its config and files say."""
    files = {path.name for path in folder.iterdir()}
    if not (folder / "config.json").is_file():
        model_files.refuse_gguf(settings.name, files)
        return  # told with what else is missing, where the weights are asked for
    config = mapping(folder / "config.json", settings.name)
    try:
        model_files.refuse(settings.name, config, files)
    except BaseModelError:
        if not _is_on_hub(settings):
            raise
        model_files.refuse(settings.name, config, files, _listed(settings, token)[1])  # the Hub knows what it was made from
        raise


def _listed(settings: ModelSettings, token: str | None) -> tuple[list[str], list[str]]:
    """A Hub model's files, and the models that its card says it was made from; none where the Hub does not say."""
    try:
        found = HfApi().model_info(settings.name, revision=settings.revision or None, token=token, timeout=PATIENCE)
        return [file.rfilename for file in found.siblings or []], model_files.made_from(found.card_data)
    except Exception:  # whatever the Hub's client raises: what is refused is refused without it
        return [], []


def origin(settings: ModelSettings, folder: Path) -> Origin:
    """Where the weights in a folder come from, and what they are known by."""
    return Origin(settings.name, folder.name if _is_on_hub(settings) else "", fingerprint(folder))


def _is_on_hub(settings: ModelSettings) -> bool:
    return settings.name != PRACTICE and not names.is_path(settings.name)


def fingerprint(folder: Path) -> str:
    """A hash of what shapes the model, of every tensor's name, type and shape, and of some of its bytes."""
    config = mapping(folder / "config.json", folder.name)
    digest = hashlib.sha256(json.dumps({name: config.get(name) for name in SHAPING}, sort_keys=True).encode())
    for name in sorted(weight_files(folder, folder.name)):
        for seen in _tensors(folder / name):
            digest.update(seen)
    return digest.hexdigest()[:16]


def stored(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of each tensor in a file. Raises StudioError for a file that is damaged."""
    try:
        with open(path, "rb") as file:
            header, _ = _header(file, path.stat().st_size)
            return [(name, tuple(told["shape"]), str(told["dtype"])) for name, told in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _header(file: BinaryIO, size: int) -> tuple[dict, int]:
    """What stands before the tensors of an open file of that size, and how many bytes it takes. Raises ValueError."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(LARGEST_HEADER, size):
        raise ValueError("longer than the file")
    return json.loads(file.read(length)), length


def _damaged(path: Path, error: Exception) -> StudioError:
    return StudioError(f"{path.name} is no whole safetensors file ({str(error)[:80]}). Fetch it again, or choose another model.")


def _tensors(path: Path) -> Iterator[bytes]:
    """What one file's tensors are known by, in the order of their names. Raises StudioError for a file that is damaged."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            header, length = _header(file, size)
            for name, told in sorted(header.items()):
                if name == "__metadata__":
                    continue
                begin, end = told["data_offsets"]
                if not 0 <= begin <= end <= size - 8 - length:
                    raise ValueError(f"{name} ends behind the file")
                file.seek(8 + length + begin)
                first = file.read(min(LOOKED_AT, end - begin))
                file.seek(8 + length + max(begin, end - LOOKED_AT))
                yield f"{name} {told['dtype']} {told['shape']}".encode() + first + file.read(min(LOOKED_AT, end - begin))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _folder(settings: ModelSettings, token: str | None, patterns: list[str]) -> Path:
    if settings.name == PRACTICE:
        return PRACTICE_MODEL
    if names.is_path(settings.name):
        if not Path(settings.name).is_dir():
            raise StudioError(f"There is no folder {settings.name} on this machine. Check its path, or name a model on the Hub.")
        return Path(settings.name)
    return fetch(settings, token, patterns)


# --- from the Hub -----------------------------------------------------------------------------------------------------


def fetch(settings: ModelSettings, token: str | None, patterns: list[str],
          begins: Callable[[int], type | None] = lambda total: None) -> Path:
    """The folder with those files of a model on the Hub. What is not on this machine is fetched, after `begins` was told its bytes;
    it may return the kind of progress bar that shows them.

    Where the Hub cannot be asked, what is here is taken if it is all of them; with a token that it does not accept, what is
    public. Raises StudioError for a file that came damaged, and for a model that the user for whom this process works may not read.
    """
    if hub_access.is_asked():
        hub_access.refuse_without(settings.name, "model", token)
    try:
        return _fetch(settings, token, patterns, begins)
    except HfHubHTTPError as error:
        if not token or error.response.status_code != 401:
            raise
    return _fetch(settings, False, patterns, begins)


def _fetch(settings: ModelSettings, token: str | None | bool, patterns: list[str], begins: Callable[[int], type | None]) -> Path:
    asked = {"repo_id": settings.name, "revision": settings.revision or None, "token": token, "allow_patterns": patterns}
    with about(settings.name):
        try:
            offered = snapshot_download(**asked, dry_run=True)
            if patterns[0] == WEIGHTS[0] and not any(file.filename.endswith(".safetensors") for file in offered):
                model_files.refuse_gguf(settings.name, _listed(settings, token or None)[0])
            missing = [file for file in offered if file.will_download]
        except DryRunError as error:  # whether everything is here is seen without the Hub too
            if token and isinstance(error.__cause__, HfHubHTTPError) and error.__cause__.response.status_code == 401:
                raise error.__cause__  # noqa: B904 (a part of it is here, and the rest may be public)
            missing = []
        bar = begins(sum(file.file_size for file in missing)) if missing else None
        folder = Path(snapshot_download(**asked, tqdm_class=bar))
        _refuse_what_came_damaged([folder / file.filename for file in missing], settings.name)
    return folder


def _refuse_what_came_damaged(paths: list[Path], name: str) -> None:
    """Raises StudioError, and removes them, for files that are not what the Hub says: its client compares sizes alone."""
    damaged = [path for path in paths if _hash_as(path.resolve(), path.resolve().name) != path.resolve().name]
    for path in damaged:
        path.resolve().unlink()
        path.unlink()
    if damaged:
        raise StudioError(f"{', '.join(path.name for path in damaged)} of {name} came damaged and went. Start again to fetch it anew.")


def _hash_as(path: Path, known: str) -> str:
    """A file's hash of the kind by which the Hub knows it: SHA-256 of a large file, git's blob id of a small one."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", known):
        return known  # a file system without links: its name says nothing
    with open(path, "rb") as file:
        if len(known) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + file.read()).hexdigest()


# --- looked through ---------------------------------------------------------------------------------------------------


def _refuse_other_than_safetensors(folder: Path, name: str) -> None:
    """Raises StudioError unless the folder is a model's, and its weights are safetensors that lie in it."""
    if (folder / ADAPTER).exists():  # transformers would go and load the base that it names
        raise StudioError(f"{name} is an adapter and not a model. Choose the base that it was trained on, or a merged model.")
    config = mapping(folder / "config.json", name)
    if config.get("transformers_weights"):
        raise StudioError(f"{name} names weights of its own choice, which the studio does not follow. "
                          f"Choose a repository whose weights are in {SINGLE}.")
    for file in weight_files(folder, name):
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise StudioError(f"{name} names {str(file)[:80]!r} as a file of its weights, which is none of its safetensors files. "
                              "Choose another model.")
        if not (folder / file).is_file():
            raise StudioError(f"{name} lacks {file}, which its list of weights names. Fetch it again, or choose another model.")
        model_files.refuse_stored(name, stored(folder / file))


def weight_files(folder: Path, name: str) -> set[str]:
    """The files that transformers would load. Raises StudioError where there are no safetensors."""
    if (folder / SINGLE).is_file():
        return {SINGLE}
    if not (folder / INDEX).is_file():
        raise StudioError(f"{name} holds no safetensors weights, and weights of other kinds can run code when they are read. "
                          "Choose a repository that has safetensors, or convert these first.")
    found = mapping(folder / INDEX, name).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise StudioError(f"{INDEX} of {name} names no weights. Fetch it again, or choose another model.")
    return {file if isinstance(file, str) else repr(file) for file in found.values()}


def mapping(path: Path, name: str) -> dict:
    """What a JSON file holds. Raises StudioError where it is not there, too large, or says something else."""
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError("too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no mapping")
    except FileNotFoundError:
        raise StudioError(f"{name} holds no model that can be read: {path.name} is missing. "
                          "Choose a model repository with safetensors weights and a config.json.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StudioError(f"{path.name} of {name} cannot be read ({str(error)[:80]}). Fetch it again, or choose another model.") from error
    return found
