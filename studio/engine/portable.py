"""Tokenizer, config and generation settings of what is saved: the base's own files, with only what training changed altered.

What a newer library writes anew, other readers may not know: names of classes, of settings, of positions. So the base's files
are carried over and read back; where they would not be read as what was trained, the library's files stand in older words.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from studio import spellings
from studio.engine import vocabulary
from studio.errors import StudioError
from studio.seal import TEMPLATE

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "added_tokens.json",
                "special_tokens_map.json")
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
DESCRIBED, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
CHANGED = ("eos_token", "pad_token")
"""What a training may set of a tokenizer, beside its template."""
PASSED_OVER = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures"}
TEXTS = ("Hello, what is the capital of France?",
         "  two  spaces and 12345.67\n\n\tdef f(x): return x**2",
         "Ärger, naïve café, 中文字, ½ 🙂", "it's  DON'T\r\n </s> <|im_start|>user\nHi<|im_end|>\n")
"""Read with both tokenizers, the saved one and the trained one."""


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The tokenizer's files with its template. Raises StudioError if what was saved is not read as the same tokenizer."""
    tokenizer.save_pretrained(folder)
    librarys = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in (*VOCABULARIES, DESCRIBED)}
    source = Path(tokenizer.name_or_path)
    if (source / DESCRIBED).is_file():
        for name in VOCABULARIES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        _describe(tokenizer, _mapping(source / DESCRIBED), folder)
        if _is_same(tokenizer, folder):
            return
    for name in VOCABULARIES:
        (folder / name).unlink(missing_ok=True)
    for name, content in librarys.items():
        (folder / name).write_bytes(content)
    _describe(tokenizer, _mapping(folder / DESCRIBED), folder)
    if not _is_same(tokenizer, folder):
        raise StudioError("The tokenizer or its chat template changed when it was saved, so it was not kept. "
                          "Choose another base, or report which one it was.")


def _describe(tokenizer: PreTrainedTokenizerBase, described: dict[str, Any], folder: Path) -> None:
    """Write what is said of a tokenizer: as it was, with what training set, and the template under both of its names."""
    now = {name: getattr(tokenizer, name) for name in CHANGED if getattr(tokenizer, name) is not None}
    told = spellings.of_tokenizer(described)
    told |= {name: token for name, token in now.items() if _text(told.get(name)) != token}
    told["chat_template"] = tokenizer.chat_template
    _write(folder / DESCRIBED, told)
    (folder / TEMPLATE).write_text(tokenizer.chat_template, encoding="utf-8")
    if (folder / SPECIAL).is_file():
        special = _mapping(folder / SPECIAL)
        _write(folder / SPECIAL, special | {name: token for name, token in now.items() if _text(special.get(name)) != token})


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _is_same(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether what was saved gives the tokens that were trained: in this library, and in readers that go by tokenizer.json alone."""
    saved = vocabulary.read(folder, folder.name)
    texts = [*TEXTS, tokenizer.chat_template, *map(str, tokenizer.all_special_tokens)]
    if (folder / "tokenizer.json").is_file():
        plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        plain.no_truncation()
        plain.no_padding()
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        if [plain.encode(text, add_special_tokens=False).ids for text in texts] != ids:
            return False
    return (saved.chat_template == tokenizer.chat_template and len(saved) == len(tokenizer)
            and all(getattr(saved, name) == getattr(tokenizer, name) for name in ("bos_token", *CHANGED))
            and saved(texts, add_special_tokens=False)["input_ids"] == tokenizer(texts, add_special_tokens=False)["input_ids"]
            and saved("a")["input_ids"] == tokenizer("a")["input_ids"])


def save_model(merged: PreTrainedModel, source: Path, stops: Iterable[int], pad: int | None, folder: Path) -> None:
    """Weights, config, generation settings and processors of a model whose base lies in `source`. `stops` end an answer."""
    # The library refuses to save settings that it finds odd, though the base was published with them.
    merged.generation_config = GenerationConfig()
    merged.save_pretrained(folder, max_shard_size="2GB")
    generation = _mapping(source / "generation_config.json") if (source / "generation_config.json").is_file() else {}
    _write(folder / "generation_config.json", generation | {"eos_token_id": list(stops), "pad_token_id": pad})
    for name in PROCESSORS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    written = _mapping(folder / "config.json")
    carried = {name: value for name, value in _mapping(source / "config.json").items() if name != "quantization_config"}
    for told in (_with_what_changed(carried, written), written):
        _write(folder / "config.json", spellings.of_config(told))
        if "auto_map" in told or _reads_as(merged.config, folder):
            return
    raise StudioError("The model's config changed when it was saved, so the merged model was not kept. Use the adapter itself.")


def _with_what_changed(carried: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """The base's config with the vocabulary's size and the type of numbers as saved, and positions in newer words too."""
    told = carried | {name: written[name] for name in ("dtype", "vocab_size", "rope_parameters") if name in written}
    if isinstance(told.get("text_config"), dict) and isinstance(written.get("text_config"), dict):
        told["text_config"] = _with_what_changed(told["text_config"], written["text_config"])
    return told


def _reads_as(config: PretrainedConfig, folder: Path) -> bool:
    read = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return _compared(read.to_dict()) == _compared(config.to_dict())


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    return {name: _compared(value) if isinstance(value, dict) else value for name, value in config.items()
            if name not in PASSED_OVER and value is not None}


def _mapping(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise StudioError(f"{path.name} of {path.parent.name} cannot be read, so nothing was saved. Fetch it again.") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
