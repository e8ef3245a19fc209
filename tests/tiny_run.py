"""A run that has been trained, in miniature: a tiny Llama with ChatML, an adapter that changes it, the log of a run."""

import json
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from studio import events, jobs, runs
from studio.engine import adapter, model, portable
from studio.engine.vocabulary import CHATML, load_tokenizer
from studio.runs import Run
from studio.seal import seal
from tests.jobs_at_work import practice

SENTENCES = ["What is the capital of France?", "The capital of France is Paris.", "How many legs has a spider?", "Eight."]


def tiny_base(folder: Path, chatml: bool = True) -> Path:
    """A Llama of two layers with random weights, in bfloat16. Its generation settings stop at another token as well."""
    alphabet = Tokenizer(models.BPE())
    alphabet.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>"] + ["<|im_start|>", "<|im_end|>"] * chatml
    alphabet.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=alphabet, eos_token=special[-1], pad_token=special[0])
    tokenizer.chat_template = CHATML if chatml else None
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, eos_token_id=0, pad_token_id=0, tie_word_embeddings=True))
    base.to(torch.bfloat16).save_pretrained(folder)
    # Settings such as many a published base has: not allowed to be saved again once they are changed.
    generation = {"eos_token_id": 0, "pad_token_id": 0, "do_sample": False, "temperature": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    tokenizer.save_pretrained(folder)
    return folder


def tuned_run(root: Path, base: Path | str, added: bool = False, **changes) -> Run:
    """A finished run on that base; `changes` are settings by field name. With `added` ChatML's tokens are, as older versions did."""
    run = runs.create(root, practice(**{"model.name": str(base)} | changes))
    settings = run.settings
    tokenizer = load_tokenizer(settings.model)
    if added:
        tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.chat_template, tokenizer.eos_token = CHATML, "<|im_end|>"
    torch.manual_seed(1)
    tuned = get_peft_model(model.load_base(settings.model, tokenizer), model.lora_config(settings.adapter))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:  # zero at first, as if nothing had been learned
            weight.data.normal_(std=0.05)
    tuned.save_pretrained(run.adapter, save_embedding_layers=False)
    (run.adapter / "README.md").unlink()
    portable.save_tokenizer(tokenizer, run.adapter)
    adapter.sign(run.adapter, tuned.get_base_model().origin)
    rows = [{"prompt": [{"role": "user", "content": text}], "chosen": [], "rejected": []} for text in SENTENCES]
    run.held_out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _say_what_a_training_says(run, seal(tokenizer.chat_template))
    return run


def _say_what_a_training_says(run: Run, template: str) -> None:
    log = jobs.of(run).log
    for event in (
            events.Started(device="cpu", versions={"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"}),
            events.Noted("40 rows, 2 of them left out: 2 have the same answer twice."),
            events.Planned(pairs=30, held_out=8, steps=2, template=template),
            events.Evaluated(0, "base", {"rewards/accuracies": 0.5, "rewards/margins": 0.01, "n": 8}),
            events.Stepped(1, {"loss": 2.5, "rewards/margins": 0.01}, memory=10**9),
            events.Stepped(2, {"loss": 2.0, "rewards/margins": 0.04}, memory=10**9),
            events.Saved(2, "adapter"),
            events.Evaluated(2, "tuned", {"rewards/accuracies": 0.875, "rewards/margins": 0.05, "n": 8}),
            events.Finished()):
        events.append(log, event)


def heard_from(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    """What a saved model, with an adapter or without, finds likely after each of SENTENCES: log-probabilities."""
    speaker = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    if adapter:
        speaker = PeftModel.from_pretrained(speaker, adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter or folder)
    with torch.no_grad():
        return torch.stack([
            speaker(**tokenizer(text, return_tensors="pt")).logits[0, -1].float().log_softmax(-1) for text in SENTENCES])
