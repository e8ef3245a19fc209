"""The tokenizer with its chat template. Training, chat, merge and the examination all come through here, so that they agree.

Apart from the model, so that whoever only reads texts need not wait for what computes.
"""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from studio import model_files
from studio.engine import bounds, snapshot
from studio.engine.rendering import Refusal, render
from studio.engine.worker import about
from studio.errors import StudioError
from studio.practice import MODEL as PRACTICE_MODEL
from studio.settings import PRACTICE, ModelSettings

CHATML = """{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""
CHATML_END = "<|im_end|>"


def where(settings: ModelSettings) -> str | Path:
    """The Hub id or folder to load from: "practice" is the model that ships with the studio."""
    return PRACTICE_MODEL if settings.name == PRACTICE else settings.name


def load_tokenizer(settings: ModelSettings, token: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer with a chat template and a padding token of its own choice stated.

    Raises StudioError for a model without a template when template is "own", and for one that cannot be rendered.
    """
    folder = snapshot.of(settings, token, weights=False)
    tokenizer = read(folder, settings.name)
    if settings.template == "chatml":
        _write_chatml(tokenizer, settings.name)
    if not tokenizer.chat_template:
        raise StudioError(f"{settings.name} has no chat template. Set Chat template to chatml.")
    # A padding token without a row in the embedding matrix could not be looked up in a padded batch.
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows(folder, len(tokenizer)):
        tokenizer.pad_token = tokenizer.eos_token
    try:
        _begin_as_pretrained(tokenizer)
    except Refusal as error:
        raise StudioError(f"The chat template of {settings.name} does not take a question: {error}. "
                          "Set Chat template to chatml, or choose another model.") from error
    return tokenizer


def _write_chatml(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """ChatML in the tokens that the base has: a turn ends with <|im_end|>, or with the base's own end of text.

    No token is added. Its row in the embedding matrix would be part of no LoRA adapter, so that PEFT, transformers and vLLM
    could not use the adapter on the base. Marks that are not tokens are text, as Zephyr's <|user|> is.
    Raises StudioError for a base that has neither end.
    """
    end = next((end for end in (CHATML_END, tokenizer.eos_token) if end and _is_token(tokenizer, end)), None)
    if end is None:
        raise StudioError(f"{name} has neither {CHATML_END} nor an end-of-text token, so ChatML could not end an answer. "
                          "Choose another base, or a model with a chat template of its own.")
    tokenizer.chat_template = CHATML.replace(CHATML_END, end)
    tokenizer.eos_token = end


def _is_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    return tokenizer.get_vocab().get(text) in tokenizer(text, add_special_tokens=False)["input_ids"]


def chatml_in_words(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> str:
    """What ChatML is for a base without its tokens; empty where the base has them or another template is used."""
    if settings.template != "chatml" or tokenizer.eos_token == CHATML_END:
        return ""
    return (f"{settings.name} has no token {CHATML_END}. ChatML is written with tokens that it has: its marks are text, and a turn ends "
            f"with {tokenizer.eos_token}. So the adapter works on the base as it is.")


def rows(folder: Path, otherwise: int) -> int:
    """Tokens that the embedding matrix has rows for, by the base's config."""
    config = snapshot.mapping(folder / "config.json", folder.name)
    parts = (config, config.get("text_config"))
    return next((part["vocab_size"] for part in parts if isinstance(part, dict) and isinstance(part.get("vocab_size"), int)), otherwise)


def read(folder: Path, name: str, **options) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, with at most one chat template. Raises StudioError for one that cannot be read."""
    model_files.refuse_without_vocabulary(name, [path.name for path in folder.iterdir()])
    with about(name), bounds.bounded(f"Reading the tokenizer of {name}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    if isinstance(tokenizer.chat_template, dict):  # several by name, of which talks take the default one
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    with bounds.bounded(f"The tokenizer of {name}"):
        tokens = tokenizer("a b c", add_special_tokens=False)["input_ids"]
    if not tokens:
        raise StudioError(f"The tokenizer of {name} makes no tokens of plain words: its vocabulary is empty. "
                          "Fetch it again, or choose another model.")
    return tokenizer


def _begin_as_pretrained(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the template write the begin-of-text token where the tokenizer would put one before any other text.

    A base has hardly ever read a text without it. In the template it is the same for training, chat and whoever
    loads the model later.
    """
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if begins and not render(tokenizer, [{"role": "user", "content": "a"}]).startswith(tokenizer.bos_token):
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
