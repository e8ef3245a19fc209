"""A model's shape without loading it: its config and the headers of its safetensors files, from a folder or the Hub."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from studio import hub_access, model_files
from studio.errors import BaseModelError, StudioError, explain
from studio.names import OUTSIDE_LAYERS
from studio.practice import MODEL as PRACTICE_MODEL
from studio.settings import PRACTICE, ModelSettings

WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2}
"""Bytes of a stored number; all that is not here takes one."""

IN_A_LAYER = re.compile(r"\.(\d+)\.")
PATIENCE = 10
"""Seconds to wait for each answer of the Hub."""
LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself reads no longer ones. The length stands in the file, which anyone may have made."""
LARGEST_CONFIG = 10_000_000

Tensors = dict[str, tuple[tuple[int, ...], str]]
"""Shape and type of every stored tensor, by its name."""


@dataclass(frozen=True)
class Linear:
    """`count` linear layers of one name and size; `name` is the last of its path, such as q_proj."""

    name: str
    inputs: int
    outputs: int
    count: int


@dataclass(frozen=True)
class Shape:
    """What memory and time follow from. Widths in numbers; `queries` and `keys` are those of all heads together.

    `embeddings` counts the weights of embedding matrix and head, of tied ones once. `stored` is the size of the weight files in
    bytes; `norms` counts a layer's norms over its whole width, and `norms_first` says that linear maps read what root mean square
    norms give, as they do in most families. `blockwise` says that attention has a softcap or sinks, which the engine computes in
    blocks of scores (`studio.engine.orpo.blockwise`).
    """

    parameters: int
    embeddings: int
    stored: int
    layers: int
    hidden: int
    heads: int
    queries: int
    keys: int
    intermediate: int
    vocabulary: int
    linears: tuple[Linear, ...]
    norms: int
    norms_first: bool
    norms_heads: bool
    blockwise: bool

    @property
    def in_linears(self) -> int:
        """Weights of the layers' linear maps: those which quantization takes and an adapter can stand on."""
        return sum(one.inputs * one.outputs * one.count for one in self.linears)

    def targeted(self, modules: str) -> list[Linear]:
        """The linear maps that get an adapter. A name may be the end of a path, such as mlp.down_proj."""
        named = {name.strip().rsplit(".", 1)[-1] for name in modules.split(",") if name.strip()}
        return [one for one in self.linears if named == {"all-linear"} or one.name in named]

    def missing(self, modules: str) -> list[str]:
        """Those of the named modules that no layer's linear map is called, nor the maps before and after all layers."""
        has = {one.name for one in self.linears} | OUTSIDE_LAYERS
        named = [name.strip() for name in modules.split(",") if name.strip()]
        return [] if named == ["all-linear"] else [name for name in named if name.rsplit(".", 1)[-1] not in has]


def described(config: dict, tensors: Tensors) -> Shape:
    """The shape of a model by its config and its tensors. Raises StudioError for what cannot be told from them."""
    text = config.get("text_config") or config

    def said(*names: str) -> int:
        found = next((text[name] for name in names if text.get(name)), None)
        if found is None:
            raise StudioError(f"The model's config does not say its {names[0]}. Try two steps to measure what it needs.")
        return found

    hidden, heads = said("hidden_size", "n_embd", "d_model"), said("num_attention_heads", "n_head")
    head = text.get("head_dim") or hidden // heads
    sizes = {name: shape for name, (shape, _) in tensors.items()}
    norms = [name for name, shape in sizes.items() if shape == (hidden,) and re.search(r"norm\w{0,60}\.weight|ln_\d\.weight", name)]
    layers = said("num_hidden_layers", "n_layer")
    return Shape(
        parameters=sum(prod(shape) for shape in sizes.values()), embeddings=_outside_layers(sizes),
        stored=sum(prod(shape) * WIDTHS.get(kind, 1) for shape, kind in tensors.values()),
        layers=layers, hidden=hidden, heads=heads, queries=heads * head,
        keys=(text.get("num_key_value_heads") or heads) * head,
        intermediate=_widened(text, hidden), vocabulary=said("vocab_size"), linears=_linears(sizes),
        norms=round(len([name for name in norms if IN_A_LAYER.search(name)]) / layers),
        norms_first=any(name.endswith("input_layernorm.weight") and name.replace("weight", "bias") not in sizes for name in sizes),
        norms_heads=any("q_norm" in name for name in sizes),
        blockwise=bool(text.get("attn_logit_softcapping")) or any(name.endswith(".sinks") for name in sizes))


def _widened(text: dict, hidden: int) -> int:
    """The MLP's width; with experts the width of all that one token meets."""
    if text.get("num_experts_per_tok"):
        return text["num_experts_per_tok"] * (text.get("moe_intermediate_size") or text.get("intermediate_size"))
    return text.get("intermediate_size") or text.get("n_inner") or 4 * hidden


def _outside_layers(sizes: dict[str, tuple[int, ...]]) -> int:
    """The weights of the embedding matrix and the head."""
    return sum(prod(shape) for name, shape in sizes.items() if name.endswith(".weight") and len(shape) == 2
               and name.split(".")[-2] in OUTSIDE_LAYERS and not IN_A_LAYER.search(name))


def _linears(sizes: dict[str, tuple[int, ...]]) -> tuple[Linear, ...]:
    """The linear maps inside layers. Experts are held in one tensor by transformers and are none."""
    counted = Counter()
    for name, shape in sizes.items():
        if name.endswith(".weight") and len(shape) == 2 and IN_A_LAYER.search(name) and "embed" not in name and ".experts." not in name:
            counted[name.split(".")[-2], shape[1], shape[0]] += 1
    return tuple(Linear(*which, count) for which, count in counted.items())


class Shapes:
    """The shapes of the models that one person asked for, each read once; also why one could not be read.

    `from_cache` takes a model that is whole in this machine's cache without asking the Hub whether they may see it.
    """

    def __init__(self, from_cache: bool = True):
        self.from_cache = from_cache
        self._found: dict[tuple[str, str], Shape | StudioError] = {}

    def known(self, settings: ModelSettings) -> Shape | None:
        """The shape if it is known or lies on this machine, else None; asks nobody. Raises StudioError as `find` did."""
        found = self._found.get((settings.name, settings.revision))
        if found is None and _folder(settings).is_dir():
            return self.find(settings)
        if isinstance(found, StudioError):
            raise found
        return found

    def find(self, settings: ModelSettings, token: str | None = None) -> Shape:
        """The shape, from the Hub if it must be. Raises StudioError; asked again, it tries again."""
        key = settings.name, settings.revision
        if not isinstance(self._found.get(key), Shape):
            try:
                self._found[key] = self._look_up(settings, token)
            except StudioError as error:
                self._found[key] = error
                raise
        return self._found[key]

    def _look_up(self, settings: ModelSettings, token: str | None) -> Shape:
        folder = _folder(settings)
        try:
            return _local(folder) if folder.is_dir() else _on_hub(settings, token, self.from_cache)
        except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError, IndexError) as error:  # a config can say anything
            raise StudioError(f"The config of {settings.name} describes no model ({type(error).__name__}). "
                              "Choose another, or try two steps to see whether it loads.") from error


def _folder(settings: ModelSettings) -> Path:
    return PRACTICE_MODEL if settings.name == PRACTICE else Path(settings.name)


def on_hub(settings: ModelSettings) -> bool:
    """Whether a model is a repository's and no folder of this machine."""
    return not _folder(settings).is_dir()


def _local(folder: Path, called: str = "") -> Shape:
    """The shape of the model in a folder, which is `called` so in what it is refused with."""
    called = called or str(folder)
    try:
        files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
        listed = [path.name for path in folder.iterdir()]
        model_files.refuse_gguf(called, listed)
        config = _json(folder / "config.json", LARGEST_CONFIG)
        model_files.refuse(called, config, listed)
        tensors = {name: found for file in files for name, found in _header(file)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StudioError(f"The model in {folder} cannot be read. Choose a folder with config.json and safetensors weights.") from error
    if not tensors:
        raise StudioError(f"{folder} holds no safetensors weights. Choose a folder with config.json and safetensors weights.")
    model_files.refuse_without_vocabulary(called, listed)
    return _sound(called, config, tensors)


def _sound(called: str, config: dict, tensors: Tensors) -> Shape:
    """The shape of a model whose weights are stored as numbers that need no scales. Raises StudioError for others."""
    model_files.refuse_stored(called, ((name, shape, kind) for name, (shape, kind) in tensors.items()))
    return described(config, tensors)


def _json(path: Path, most: int) -> dict:
    """What a JSON file holds. Raises ValueError for one that is larger than it should be, or no mapping."""
    if path.stat().st_size > most:
        raise ValueError(f"{path.name} is larger than {most} bytes.")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no mapping.")
    return found


def _is_whole(folder: Path) -> bool:
    """Whether all weight files of a downloaded model are there."""
    index = folder / "model.safetensors.index.json"
    named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ["model.safetensors"]
    return all((folder / name).is_file() for name in set(named))


def _header(file: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
    """Name, shape and type of the tensors of one file: its length and its JSON stand in front."""
    with open(file, "rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"{file.name} has a header of {length} bytes.")
        header = json.loads(weights.read(length))
    for name, told in header.items():
        if name != "__metadata__":
            yield name, (tuple(told["shape"]), told["dtype"])


def _on_hub(settings: ModelSettings, token: str | None, from_cache: bool) -> Shape:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import NotASafetensorsRepoError

    asked = {"repo_id": settings.name, "revision": settings.revision or None}
    try:
        cached = try_to_load_from_cache(filename="config.json", **asked) if from_cache else None
        if isinstance(cached, str) and _is_whole(Path(cached).parent):
            return _local(Path(cached).parent, settings.name)
        if not from_cache:
            hub_access.refuse_without(settings.name, "model", token)
        asked["token"] = token or (None if from_cache else False)  # this machine's own login is not for others
        told = HfApi().model_info(timeout=PATIENCE, **asked)  # says at once what the downloads would try again and again
        listed = [file.rfilename for file in told.siblings or []]
        _refuse_sizes(settings, asked["token"])
        model_files.refuse_gguf(settings.name, listed)
        model_files.refuse_without_vocabulary(settings.name, listed)
        config = _json(Path(hf_hub_download(filename="config.json", etag_timeout=PATIENCE, **asked)), LARGEST_CONFIG)
        model_files.refuse(settings.name, config, listed, model_files.made_from(told.card_data))
        files = HfApi().get_safetensors_metadata(timeout=PATIENCE, **asked).files_metadata.values()
    except NotASafetensorsRepoError as error:
        raise StudioError(f"{settings.name} holds no safetensors weights. Choose a repository that has them.") from error
    except BaseModelError:
        raise
    except Exception as error:  # whatever the Hub's client raises
        raise StudioError(explain(error, settings.name)) from error
    return _sound(settings.name, config, {name: (tuple(told.shape), told.dtype) for file in files for name, told in file.tensors.items()})


def _refuse_sizes(settings: ModelSettings, token: str | bool | None) -> None:
    """Raises StudioError where the files that describe a model are larger than any model's: this is looked up while a name is typed."""
    from huggingface_hub import HfApi

    told = HfApi(token=token).get_paths_info(settings.name, ["config.json", "model.safetensors.index.json"],
                                             revision=settings.revision or None)
    for file in told:
        if getattr(file, "size", 0) > LARGEST_CONFIG:
            raise StudioError(f"{file.path} of {settings.name} has {file.size / 1e6:,.0f} MB, which no model's has, so it was not fetched. "
                              "Choose another model.")
