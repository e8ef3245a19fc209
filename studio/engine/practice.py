"""Makes the practice set: a tokenizer, a base model pretrained on the practice language, and preference pairs.

    python -m studio.engine.practice [--out DIR]

Takes minutes on two CPU cores and gives the same tokenizer and pairs each time, and on one machine the same model.
It knows how a model learns the language; what the language is stands in studio/practice.py, and tuning the model
towards one manner is left to the studio itself.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from studio import practice

SEED = 7
THREADS = 2  # the sum of floats depends on how they are shared out, so the count is part of the recipe
VOCABULARY = 2560
TALKS = 60_000
ROWS, ROW_TOKENS = 4, 512  # a batch
MATRIX_RATE, OTHER_RATE = 8e-3, 5e-3
WARMUP = 0.05  # of the run
QUESTION_WEIGHT = 0.3  # of a question's token in the loss; of an answer's fact has 1
PHRASE_WEIGHT = 0.3  # of a set phrase's token: which one comes is chance, and chance cannot be learned
PAIRS = 2_000

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
# ChatML. The line break stands before a turn, not after it, so that a whole talk ends with the end-of-turn token.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ ('' if loop.first else '\\n') + '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '\\n<|im_start|>assistant\\n' }}
{%- endif -%}
"""

Talk = list[practice.Message]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the practice model and the practice pairs.")
    parser.add_argument("--out", type=Path, default=practice.FOLDER, help="folder to write to")
    out = parser.parse_args().out
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)

    write_pairs(out / "pairs.jsonl")
    talks = list(islice(practice.conversations(SEED), TALKS))
    tokenizer = build_tokenizer(talks)
    model = build_model(tokenizer)
    pretrain(model, tokenizer, talks)
    # Half the size, and the model is read back in any precision.
    tokenizer.save_pretrained(out / "model")
    model.to(torch.bfloat16).save_pretrained(out / "model")
    measure(model.float(), tokenizer)
    size = sum(file.stat().st_size for file in (out / "model").iterdir())
    print(f"wrote {out / 'model'}: {size / 1e6:.1f} MB")


def write_pairs(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = practice.pairs(PAIRS)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"wrote {path}: {len(rows)} pairs")


def build_tokenizer(talks: list[Talk]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: no text is foreign to it, words of the practice language are mostly one token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator((message["content"] for talk in talks for message in talk), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of three layers; every width is a multiple of 64, which 4-bit quantization needs."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        max_new_tokens=96,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    print(f"model: {model.num_parameters():,} parameters, vocabulary {len(tokenizer)}")
    return model


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, talks: list[Talk]) -> None:
    """One pass over the talks, questions and answers alike, as any base model has read both."""
    batches, phrases = list(packed_batches(tokenizer, talks)), set_phrases(tokenizer)
    optimizers = build_optimizers(model)
    schedules = [LambdaLR(optimizer, lambda step: rate_at(step / len(batches))) for optimizer in optimizers]
    started = time.monotonic()
    model.train()
    for step, (tokens, places) in enumerate(batches):
        loss = talk_loss(model, tokens, places, token_weights(tokens, tokenizer, phrases))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepped in (*optimizers, *schedules):
            stepped.step()
        model.zero_grad()
        if step % 100 == 0 or step == len(batches) - 1:
            seconds = time.monotonic() - started
            print(f"step {step:5d} of {len(batches)}  loss {loss.item():.3f}  {seconds:4.0f} s", flush=True)


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, where it learns far more from a batch; AdamW for the rest."""
    weights = dict(model.named_parameters())
    inner = [name for name in weights if name.startswith("model.layers.") and weights[name].ndim == 2]
    matrices, rest = [weights[name] for name in inner], [weights[name] for name in weights if name not in inner]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def rate_at(progress: float) -> float:
    """The share of the full learning rate: up for the first steps, then down along a cosine."""
    return min(1.0, (progress + 0.001) / WARMUP) * (1 + math.cos(math.pi * progress)) / 2


def talk_loss(model: LlamaForCausalLM, tokens: torch.Tensor, places: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted mean loss of predicting each token from those before it in the same talk."""
    # From the places, which start anew with each talk, the model knows which tokens must not see each other.
    hidden = model.model(tokens, position_ids=places, use_cache=False).last_hidden_state
    # A talk's first token follows another talk: there is nothing to predict it from.
    learned = (weights > 0) & (places > 0)
    logits = model.lm_head(hidden[:, :-1][learned[:, 1:]])
    losses = cross_entropy(logits, tokens[:, 1:][learned[:, 1:]], reduction="none")
    return (losses * weights[learned]).sum() / weights[learned].sum()


def packed_batches(tokenizer: PreTrainedTokenizerFast, talks: list[Talk]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows filled with whole talks, so that hardly a token is padding: (tokens, their places within their talks)."""
    pad, rows, places = tokenizer.pad_token_id, [[]], [[]]
    for talk in tokenizer(tokenizer.apply_chat_template(talks, tokenize=False), add_special_tokens=False)["input_ids"]:
        if len(rows[-1]) + len(talk) > ROW_TOKENS:
            rows.append([])
            places.append([])
        rows[-1] += talk[:ROW_TOKENS]
        places[-1] += range(len(rows[-1]) - len(places[-1]))
    for row, place in zip(rows, places, strict=True):
        missing = ROW_TOKENS - len(row)
        row += [pad] * missing
        place += range(missing)
    for start in range(0, len(rows) - ROWS + 1, ROWS):
        yield torch.tensor(rows[start : start + ROWS]), torch.tensor(places[start : start + ROWS])


def set_phrases(tokenizer: PreTrainedTokenizerFast) -> list[torch.Tensor]:
    """The tokens of every phrase that says nothing of a fact, as it stands before a fact and after one."""
    return [torch.tensor(tokenizer.encode(text, add_special_tokens=False))
            for phrase in practice.set_phrases() for text in (phrase, f" {phrase}")]


def token_weights(tokens: torch.Tensor, tokenizer: PreTrainedTokenizerFast, phrases: list[torch.Tensor]) -> torch.Tensor:
    """How much each token counts: an answer's fully, its end of turn included, set phrases and questions less, padding nothing."""
    begins = torch.zeros_like(tokens)
    opening = torch.tensor(tokenizer.encode(f"{START}assistant\n", add_special_tokens=False))
    rows, columns = places_of(opening, tokens)
    begins[rows, columns + len(opening)] = 1
    ended = tokens.eq(tokenizer.eos_token_id).long()
    # A token's turn is the number of turns ended before it; it is part of an answer if the latest answer began in
    # the same turn. Counted from 1, so that 0 can stand for no answer yet.
    turn = 1 + ended.cumsum(1) - ended
    answers = turn.eq((begins * turn).cummax(1).values)
    # ORPO's loss covers the question too: a model that could not tell one would spend its tuning on learning that.
    weights = torch.where(answers, 1.0, QUESTION_WEIGHT)
    for phrase in phrases:
        rows, columns = places_of(phrase, tokens)
        for place in range(len(phrase)):
            weights[rows, columns + place] = PHRASE_WEIGHT
    return weights.masked_fill(tokens.eq(tokenizer.pad_token_id), 0.0)


def places_of(phrase: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a phrase begins: (rows, columns)."""
    return tokens.unfold(1, len(phrase), 1).eq(phrase).all(dim=-1).nonzero(as_tuple=True)


@torch.no_grad()
def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Prints how often sampled answers are right and friendly, on questions that the pairs never hold."""
    model.eval()
    questions = practice.held_out_questions(400, SEED)
    tokenizer.padding_side = "left"
    answers = []
    for start in range(0, len(questions), 50):
        prompts = [question.prompt for question in questions[start : start + 50]]
        inputs = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(made, skip_special_tokens=True)
    tokenizer.padding_side = "right"
    right = sum(practice.is_right(question.fact, text) for question, text in zip(questions, answers, strict=True))
    manners = [practice.manner(text) for text in answers]
    figures = {"right": right, "friendly": manners.count("friendly"), "curt": manners.count("curt")}
    shares = [f"{count / len(answers):.1%} {what}" for what, count in figures.items()]
    print(f"{len(answers)} sampled answers: {', '.join(shares)}")


if __name__ == "__main__":
    main()
