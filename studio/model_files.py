"""What a repository says of the model in it, and whether the studio can train such a model: told before any weights are fetched.

Page and engine ask the same functions, so that the card above Start and the worker never disagree. Nothing here loads a library.
"""

import ast
import importlib.util
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from studio import names, python_source
from studio.errors import BaseModelError

QUANTIZED = re.compile(r"(^|[_.-])(quant(i[sz](e|ed|ation))?|compression)([_.-]|$)", re.IGNORECASE)
"""Keys of a config and names of files that describe how weights were quantized: quantization_config, quant_config.json and their like."""
BITS = re.compile(r"quant\w{0,60}_bits?$", re.IGNORECASE)
PLAIN = {"F64", "F32", "F16", "BF16", "BOOL", "I64", "U64"}
"""Types of stored tensors that are weights in 16 bits or more, or no weights at all: masks and positions."""
OTHER_TASK = re.compile(r"For(?!CausalLM|ConditionalGeneration)(\w{1,80})$")
"""What a class of transformers is called that ends in the head of another task, such as SequenceClassification."""
SENSES = {"vision": "images", "image": "images", "visual": "images", "audio": "sound", "video": "videos", "speech": "sound"}
DEEPEST = 8
SIXTEEN = "with weights in 16 or 32 bits"
SMALL = "Quantization under Train makes it small in memory"


def refuse(name: str, config: Mapping[str, Any], files: Collection[str] = (), made_from: Collection[str] = ()) -> None:
    """Raises BaseModelError for a repository whose model cannot be trained, as far as its config and its file names tell.

    `made_from` are the names of models of which the repository says that this one was made of them.
    """
    refuse_gguf(name, files)
    if kind := quantization(config, files):
        source = next((other for other in (*made_from, config.get("_name_or_path")) if _is_another(other, name)), "")
        instead = f"Choose {source}, from which it was made," if source else "Choose the model from which it was made,"
        raise BaseModelError(f"{name} comes quantized as {kind}, and the studio trains only on a base {SIXTEEN}. "
                             f"{instead} {SIXTEEN}; {SMALL}.")
    if kind := _other_kind(config):
        raise BaseModelError(f"{name} is {kind}, and the studio trains causal language models only. "
                             "Choose a model that writes text and that transformers loads with AutoModelForCausalLM.")


def refuse_gguf(name: str, files: Collection[str]) -> None:
    """Raises BaseModelError for a repository whose weights are made for llama.cpp."""
    if any(file.endswith(".gguf") for file in files) and not any(file.endswith(".safetensors") for file in files):
        raise BaseModelError(f"{name} holds a GGUF file, which cannot be trained on. "
                             "Choose the repository that it was made from, with weights in safetensors.")


def refuse_stored(name: str, tensors: Iterable[tuple[str, tuple[int, ...], str]]) -> None:
    """Raises BaseModelError for stored weights of a type that means nothing without scales, whatever the config says.

    tensors: name, shape and type (as safetensors writes it: BF16, F8_E4M3, I8 ...) of each.
    """
    found = [(tensor, kind) for tensor, shape, kind in tensors
             if kind not in PLAIN and (kind[0] == "F" or len([size for size in shape if size > 1]) > 1 and len(shape) < 4)]
    if found:
        tensor, kind = found[0]
        raise BaseModelError(f"{name} comes quantized: {len(found)} of its tensors, such as {tensor}, are stored as {kind}, which are "
                             "weights only with scales that the studio does not apply. "
                             f"Choose the model from which it was made, {SIXTEEN}; {SMALL}.")


def made_from(card: Any) -> list[str]:
    """The models that a repository's card names as those it was made from. `card` is what the Hub's client gives of it."""
    named = getattr(card, "base_model", None)
    return [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]


def refuse_without_vocabulary(name: str, files: Collection[str]) -> None:
    """Raises BaseModelError where no file holds a vocabulary that is read the same on every machine.

    transformers makes an empty tokenizer of a class that it knows and files that are not there, and reads a SentencePiece model
    without the normalizing of texts that is written in it.
    """
    if "tokenizer.json" in files or {"vocab.json", "merges.txt"} <= set(files) or "vocab.txt" in files:
        return
    pieces = sorted(file for file in files if file.endswith(".model"))
    held = (f"has its vocabulary only as a SentencePiece model ({pieces[0]}), which the studio does not read" if pieces else
            "holds no tokenizer that can be read: there is no tokenizer.json")
    raise BaseModelError(f"{name} {held}. Choose a repository of the same model that has a tokenizer.json.")


# --- what a config says -----------------------------------------------------------------------------------------------


def quantization(config: Mapping[str, Any], files: Collection[str] = ()) -> str:
    """How a model was quantized, in a few words; empty for one that was not."""
    for key, value in _told(config):
        if isinstance(value, Mapping):
            return _kind(value)
        return f"{value} bits" if BITS.search(key) else str(value)[:40]
    described = sorted(file for file in files if "/" not in file and file.endswith(".json") and QUANTIZED.search(file))
    return f"{described[0]} describes" if described else ""


def _told(config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What says so in a config, or in those of its parts (text_config and so on)."""
    for key, value in config.items():
        concerns = isinstance(key, str) and QUANTIZED.search(key)
        if isinstance(value, Mapping):
            if concerns and value:
                yield key, value
            elif depth < DEEPEST:
                yield from _told(value, depth + 1)
        elif isinstance(value, str):
            if concerns and value.lower() not in ("", "none", "null"):
                yield key, value
        elif isinstance(key, str) and BITS.search(key) and isinstance(value, int) and value > 0 and not isinstance(value, bool):
            yield key, value


def _kind(described: Mapping[str, Any]) -> str:
    """The method and the bits, as far as they are told: "fp8", "bitsandbytes (4 bits)", "int8 (compressed-tensors)"."""
    method = str(described.get("quant_method") or described.get("quant_algo") or described.get("quant_library") or "").strip()[:40]
    bits = next((number for number in (described.get("bits"), described.get("w_bit"), described.get("num_bits"))
                 if isinstance(number, int)), None)
    if described.get("load_in_4bit") or described.get("load_in_8bit"):
        method, bits = method or "bitsandbytes", 4 if described.get("load_in_4bit") else 8
    groups = described.get("config_groups")
    weights = [group.get("weights") for group in (groups.values() if isinstance(groups, Mapping) else ()) if isinstance(group, Mapping)]
    for weight in weights:
        if isinstance(weight, Mapping) and isinstance(weight.get("num_bits"), int):
            return f"{'fp' if weight.get('type') == 'float' else 'int'}{weight['num_bits']} ({method or 'compressed-tensors'})"
    if not method:
        return f"{bits} bits" if bits else "its config describes"
    return f"{method} ({bits} bits)" if bits else method


def _is_another(value: Any, name: str) -> bool:
    """Whether a value names a model on the Hub that is neither this one nor quantized by its name."""
    return (isinstance(value, str) and value != name and bool(names.ON_HUB.fullmatch(value)) and "/" in value
            and not re.search(r"gguf|gptq|awq|fp8|fp4|mxfp|[48]-?bit|int[48]|quant|w\d+a\d+|exl\d", value, re.IGNORECASE))


def _other_kind(config: Mapping[str, Any]) -> str:
    """What the model is, where it is no causal language model; empty where it is one, or where that cannot be told."""
    kind, code = config.get("model_type"), config.get("auto_map")
    if config.get("is_encoder_decoder") is True:
        return f"an encoder-decoder model ({_word(kind)})"
    named = config.get("architectures")
    heads = [OTHER_TASK.search(one) for one in named if isinstance(one, str)] if isinstance(named, list) else []
    if heads and all(heads):
        return f"a model for another task ({_word(named[0])})"
    if isinstance(code, Mapping) and "AutoModelForCausalLM" in code:
        return ""
    known = causal_types()
    senses = sorted({word for key, value in config.items() if isinstance(value, Mapping) and isinstance(key, str)
                     for sense, word in SENSES.items() if key.startswith(sense)})
    if not isinstance(kind, str) or not known or kind in known or not (kind in known_types() or senses):
        return ""
    return f"a model of the kind {_word(kind)}" + (f", which also takes {' and '.join(senses)}" if senses else "")


def _word(value: Any) -> str:
    return str(value)[:60]


# --- what transformers can load ---------------------------------------------------------------------------------------


@cache
def causal_types() -> frozenset[str]:
    """The model types for which the installed transformers has a causal language model; none where that cannot be read.

    Read from its source: to import it takes seconds, and memory that the page does without.
    """
    return _types("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


@cache
def known_types() -> frozenset[str]:
    """The model types for which the installed transformers has a model of any kind; none where that cannot be read."""
    return _types("_MAPPING_NAMES")


def _types(table: str) -> frozenset[str]:
    """The first of each pair in the tables of transformers' auto classes whose name ends so."""
    found = importlib.util.find_spec("transformers")
    folder = Path(found.origin).parent / "models" / "auto" if found and found.origin else Path()
    try:
        read = [python_source.parsed(folder / name) for name in ("modeling_auto.py", "auto_mappings.py")]
    except (OSError, SyntaxError):
        return frozenset()
    tables = (node for tree in read for node in tree.body if isinstance(node, ast.Assign)
              and any(isinstance(target, ast.Name) and target.id.endswith(table) for target in node.targets))
    return frozenset(pair.elts[0].value for node in tables for pair in ast.walk(node)
                     if isinstance(pair, ast.Tuple) and len(pair.elts) == 2 and isinstance(pair.elts[0], ast.Constant))
