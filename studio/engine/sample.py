"""The answers of base and tuned to the same prompts, as training goes, for the record of a run."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, StoppingCriteriaList

from studio.engine.asking import Asker
from studio.engine.orpo.forwards import evaluating
from studio.preferences.pairs import Message

LONGEST = 96
"""Tokens of an answer."""


class Sampler:
    """Asks one model the same prompts again and again. Every answer is the greedy one, so that only training changes it."""

    def __init__(self, model: PeftModel, asker: Asker, tokenizer: PreTrainedTokenizerBase, prompts: list[list[Message]],
                 heed: Callable[[], None] = lambda: None):
        """`heed` is called before each token, and may raise to end it all."""
        self.model, self.asker, self.tokenizer, self.prompts, self.heed = model, asker, tokenizer, prompts, heed
        self._of_base: list[str] = []

    def answers(self) -> Iterator[tuple[str, str, str]]:
        """(question, base's answer, tuned's answer) for each prompt. The base is asked the first time only.

        Draws no random number, and leaves the model in the mode that it was in.
        """
        for place, prompt in enumerate(self.prompts):
            if place == len(self._of_base):
                self._of_base.append(self._answer(prompt, as_base=True))
            yield prompt[-1]["content"], self._of_base[place], self._answer(prompt)

    @torch.no_grad()
    def _answer(self, prompt: list[Message], as_base: bool = False) -> str:
        tokenizer, config = self.tokenizer, self.model.generation_config
        text = self.asker.prompt(prompt)
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(self.model.device)
        ends = config.eos_token_id
        stops = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        with evaluating(self.model), self.model.disable_adapter() if as_base else nullcontext():
            written = self.model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, temperature=None, top_p=None,
                top_k=None, max_new_tokens=LONGEST, stopping_criteria=StoppingCriteriaList([self._go_on]),
                eos_token_id=sorted(stops), pad_token_id=tokenizer.pad_token_id)
        return tokenizer.decode(written[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip()

    def _go_on(self, ids: torch.Tensor, scores: torch.Tensor, **_) -> torch.Tensor:
        self.heed()
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
