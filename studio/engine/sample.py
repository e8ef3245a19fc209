"""The answers of base and tuned to the same prompts, for the record of a run."""

from collections.abc import Iterator

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from studio.engine.rendering import render
from studio.preferences.pairs import Message


@torch.no_grad()
def answers(model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[Message]],
            max_new_tokens: int = 96) -> Iterator[tuple[list[Message], str, str]]:
    """(prompt, base's answer, tuned's answer) for each prompt, chosen greedily: the same every time."""
    model.eval()
    for prompt in prompts:
        text = render(tokenizer, prompt, add_generation_prompt=True)
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
        with model.disable_adapter():
            base = _answer(model, tokenizer, inputs, max_new_tokens)
        yield prompt, base, _answer(model, tokenizer, inputs, max_new_tokens)


def _answer(model: PeftModel, tokenizer: PreTrainedTokenizerBase, inputs, max_new_tokens: int) -> str:
    stops = {tokenizer.eos_token_id, *_listed(model.generation_config.eos_token_id)} - {None}
    written = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False,
                             temperature=None, top_p=None, top_k=None, max_new_tokens=max_new_tokens,
                             eos_token_id=sorted(stops), pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(written[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip()


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]
