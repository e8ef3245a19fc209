"""What a model says after a run's held-out prompts: by this one that was merged or written in another way proves to be the same."""

import json

import torch
from transformers import PreTrainedTokenizerBase

from studio.engine.asking import Asker
from studio.runs import Run

PROMPTS, LONGEST, LIKELY = 8, 512, 20
"""What the proof looks at: the first held-out prompts, of each its last tokens, and the likeliest tokens to come next."""

FALLBACK = [{"role": "user", "content": "Hello! What can you do for me?"}]


def prompts(run: Run, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """The prompts of the proof as token ids, each of shape (1, tokens)."""
    rows = run.held_out.read_text(encoding="utf-8").splitlines() if run.held_out.is_file() else []
    talks = [json.loads(row)["prompt"] for row in rows[:PROMPTS]] or [FALLBACK]
    texts = list(map(Asker(run, tokenizer).prompt, talks))
    return [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][:, -LONGEST:] for text in texts]


@torch.no_grad()
def hear(speaker: torch.nn.Module, asked: list[torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of the token after each prompt, shape (prompts, vocabulary), float32."""
    return torch.stack([speaker(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(-1) for ids in asked])


def difference(heard: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference among the tokens that are expected most: the unlikely ones are mostly rounding."""
    likely = expected.topk(min(LIKELY, expected.shape[-1])).indices
    return (heard.gather(-1, likely) - expected.gather(-1, likely)).abs().max().item()
