"""A tokenizer as llama.cpp reads it: tokens, merges, and by its name the way in which a text is first taken apart.

llama.cpp knows these ways by name only, and one that is nearly the same gives other tokens without a word. A tokenizer is
written where its own description is, to the letter, one that has a name below; any other is refused.
"""

import json
from pathlib import Path
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

from studio.engine.ggml.shape import INSTEAD
from studio.errors import StudioError

BYTES = {"type": "ByteLevel", "add_prefix_space": False}
WORDS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
               r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
               r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")}
"""The expressions by which the ways of these names take a text apart."""
WHOLE_WORDS = ("llama-bpe", "tekken")
"""Under these names a word that is a token is taken without merging."""


def described(folder: Path) -> dict[str, Any]:
    """The tokenizer's own description, tokenizer.json. Raises StudioError where there is none."""
    try:
        return dict(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StudioError(f"tokenizer.json of {folder.name} cannot be read, and without it the vocabulary is not known. "
                          f"{INSTEAD}") from error


def way(description: dict[str, Any]) -> str:
    """The name under which llama.cpp takes a text apart as this tokenizer does. Raises StudioError where it has none."""
    model, normalizer = description["model"], description.get("normalizer")
    named = None
    if model.get("type") == "BPE" and not model.get("byte_fallback") and normalizer in (None, {"type": "NFC"}):
        named = _named(description.get("pre_tokenizer") or {})
    if named is None or (model.get("ignore_merges") and named not in WHOLE_WORDS):
        raise StudioError(f"This model's tokenizer takes texts apart in a way that the studio does not write for llama.cpp. {INSTEAD}")
    return named


def _named(steps: dict[str, Any]) -> str | None:
    first, *rest = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    if not rest:
        return "gpt-2" if _is_bytes(first, by_words=True) else None
    if len(rest) > 1:
        return None
    if first == {"type": "Digits", "individual_digits": True}:
        return "smollm" if _is_bytes(rest[0], by_words=True) else None
    if first.get("type") != "Split" or first.get("behavior") != "Isolated" or first.get("invert") or not _is_bytes(rest[0], by_words=False):
        return None
    return {words: name for name, words in WORDS.items()}.get(first["pattern"].get("Regex"))


def _is_bytes(step: dict[str, Any], by_words: bool) -> bool:
    """Whether a step writes a text in bytes, taking it apart by GPT-2's expression or not at all."""
    return {name: step.get(name) for name in BYTES} == BYTES and step.get("use_regex", True) == by_words


def write(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, description: dict[str, Any], rows: int) -> None:
    """Tokens, merges, marks and chat template, as keys of the file. `rows`: how many tokens the embeddings have rows for.

    Raises StudioError where tokens have no row.
    """
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    if max(texts) >= rows:
        raise StudioError(f"The tokenizer has {max(texts) + 1:,} tokens and the embeddings {rows:,} rows, "
                          f"so nothing was written. {INSTEAD}")
    added = tokenizer.added_tokens_decoder
    kinds = {number: gguf.TokenType.CONTROL if token.special else gguf.TokenType.USER_DEFINED for number, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(way(description))
    writer.add_token_list([texts.get(number, f"[PAD{number}]") for number in range(rows)])
    writer.add_token_types([kinds.get(number, gguf.TokenType.NORMAL) if number in texts else gguf.TokenType.UNUSED
                            for number in range(rows)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in description["model"]["merges"]])
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    writer.add_add_bos_token(begin is not None and tokenizer("a")["input_ids"][:1] == [begin])
    for number, add in ((begin, writer.add_bos_token_id), (end, writer.add_eos_token_id), (end, writer.add_eot_token_id),
                        (pad, writer.add_pad_token_id)):
        if number is not None:
            add(number)
    writer.add_chat_template(tokenizer.chat_template)
