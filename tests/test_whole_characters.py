"""A pair token by token, in whole characters: one whose bytes are spread over tokens is shown once, and its tokens are still counted."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from studio.engine.look import look, texts
from studio.engine.vocabulary import load_tokenizer
from studio.preview import Tokens
from studio.settings import ModelSettings
from studio.ui import examined
from tests.jobs_at_work import practice

TEXTS = ("Yes 🎉", "日本語", "naïve — “x”", "e\u0301 👩‍👩‍👧 ok", "bad \ufffd char", "\ufffd", "plain", "🎉\n🎉", "‮left")


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each byte."""
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def byte_fallback() -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind, which has single letters, and bytes for all others."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {letter: 256 + place for place, letter in enumerate("▁abcdefghijklmnopqrstuvwxyzY")}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("make", [byte_level, byte_fallback, lambda: load_tokenizer(ModelSettings())], ids=["bytes", "fallback", "practice"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_together_are_the_text_in_whole_characters(make, text):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = texts(ids, tokenizer.decode)
    assert len(found) == len(ids)
    if "\ufffd" not in text:  # of one that holds this very character nothing can be told
        assert "".join(part or "" for part in found) == text and not any("\ufffd" in (part or "") for part in found)


def test_a_character_of_four_tokens_is_shown_once_and_counted_as_four():
    tokenizer = byte_level()
    assert texts(tokenizer("a🎉b")["input_ids"], tokenizer.decode) == ["a", "🎉", None, None, None, "b"]


def test_a_pair_with_a_split_character_is_shown_without_a_question_mark_in_a_diamond():
    pair = {"prompt": [{"role": "user", "content": "Party?"}], "chosen": [{"role": "assistant", "content": "Yes 🎉"}],
            "rejected": [{"role": "assistant", "content": "No."}]}
    told = Tokens(**look({"settings": practice().model_dump(), "pair": pair}))
    assert None in told.chosen and "🎉" in "".join(part or "" for part in told.chosen)
    html = examined.as_read(told)
    assert "\ufffd" not in html and "🎉" in html
    assert html.count('class="token scored more"') == told.chosen.count(None) and f"{len(told.chosen):,} and" in html
    cut = Tokens(told.prompt, told.chosen, told.rejected, told.chosen.index(None), told.seal)  # the length ends within the character
    assert 'class="token cut more"' in examined.as_read(cut)
