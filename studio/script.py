"""A run's settings as a short Python script that needs no studio: TRL's ORPOTrainer takes the same steps from the same pairs."""

import ast
from pathlib import Path

from studio import plan, python_source
from studio.errors import SettingsError
from studio.installed import REQUIREMENTS
from studio.settings import PRACTICE, Settings, TrainingSettings

TRL = "1.16.0"
"""With which the script has run; the reference that the engine's steps are compared with."""
PACKAGES = ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers")
ENGINE = Path(__file__).resolve().parent / "engine"

SCRIPT = '''"""Fine-tunes a language model with preference pairs by ORPO, as a run of ORPO Studio does, but with TRL alone.

    pip install {packages}
    python train.py [cleaned.jsonl] [--push-to OWNER/NAME]

cleaned.jsonl holds the pairs: in the studio, under Data, "Take the cleaned pairs elsewhere" writes it as a JSONL file. Of the same
file this takes the same pairs as the run, in the same steps. The adapter is written to the folder adapter, the model with it to
merged; --push-to makes that a private repository on the Hub (log in with `hf auth login`).
"""

import argparse
import hashlib
import json
import math
import os

import torch
from datasets import Dataset
from huggingface_hub import HfApi
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer{bits_import}, set_seed
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("pairs", nargs="?", default="cleaned.jsonl")
parser.add_argument("--push-to", default="", metavar="OWNER/NAME")
asked = parser.parse_args()

# --- the model --------------------------------------------------------------------------------------------------------

on_gpu = {on_gpu}
dtype = {dtype}
base = {{"pretrained_model_name_or_path": {model}, "revision": {revision}}}

tokenizer = AutoTokenizer.from_pretrained(**base)
{template}if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
if tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id and not tokenizer.apply_chat_template(
        [{{"role": "user", "content": "a"}}], tokenize=False).startswith(tokenizer.bos_token):
    tokenizer.chat_template = "{{{{ bos_token }}}}" + tokenizer.chat_template  # a base has hardly ever read a text without it
model = AutoModelForCausalLM.from_pretrained(**base, dtype=dtype, device_map="cuda" if on_gpu else "cpu"{bits})
model.requires_grad_(False)
set_seed({training.seed})  # of the adapter's first weights
model = get_peft_model(model, LoraConfig(
    r={adapter.rank}, lora_alpha={adapter.alpha}, lora_dropout={adapter.dropout}, bias={bias}, task_type="CAUSAL_LM",
    target_modules={targets}))

# --- the pairs --------------------------------------------------------------------------------------------------------


def key(pair):
    """By which a pair is drawn: its own, whatever other pairs the file holds."""
    text = json.dumps([pair["prompt"], pair["chosen"], pair["rejected"]], sort_keys=True)
    return hashlib.blake2b(f"{data.seed} {{text}}".encode(), digest_size=8).digest()


def with_values(talk):
    """The talk with the arguments of tool calls as values, as chat templates want them, where the file has them as a text."""
    for call in (call["function"] for turn in talk for call in turn.get("tool_calls") or []):
        call["arguments"] = json.loads(call["arguments"]) if isinstance(call["arguments"], str) else call["arguments"]
    return talk


def tokenized(pair):
    """Both answers behind the prompt, an end behind them where the template writes none, cut at the maximum length."""
    prompt, *texts = (tokenizer.apply_chat_template(
        with_values(talk), tools=pair.get("tools"), tokenize=False, add_generation_prompt=not answer) for talk, answer in (
        (pair["prompt"], False), (pair["prompt"] + pair["chosen"], True), (pair["prompt"] + pair["rejected"], True)))
    shared, read = len(os.path.commonprefix([prompt, *texts])), [tokenizer(text, add_special_tokens=False) for text in texts]
    start = min(next((token for at in range(shared, len(text)) if (token := one.char_to_token(at)) is not None), len(one["input_ids"]))
                for text, one in zip(texts, read))
    row = {{}}
    for side, one in zip(("chosen", "rejected"), read):
        ids = one["input_ids"] + [tokenizer.eos_token_id] * (tokenizer.eos_token_id not in one["input_ids"][start:])
        ids = ids[:{training.max_length}]
        row |= {{side + "_input_ids": ids, side + "_attention_mask": [1] * len(ids), side + "_labels": [-100] * start + ids[start:]}}
        row |= {{"prompt_input_ids": ids[:start], "prompt_attention_mask": [1] * len(ids[:start])}}
    return row


def teaches(row):
    """Not so where the prompt fills the maximum length, or the answers differ only behind it: of such a pair TRL makes NaN."""
    shortest = min(len(row["chosen_input_ids"]), len(row["rejected_input_ids"]))
    return max(1, len(row["prompt_input_ids"])) < shortest and row["chosen_input_ids"] != row["rejected_input_ids"]


with open(asked.pairs, encoding="utf-8") as lines:
    pairs = sorted(map(json.loads, lines), key=key)
train = [pair for pair in pairs if pair.get("split") != "test"]{rows}
held_out = [pair for pair in pairs if pair.get("split") == "test"]
{split}drawn = len(train) + len(held_out)
train, held_out = (list(filter(teaches, map(tokenized, part))) for part in (train, held_out))
print(f"{{len(train)}} pairs to learn from, {{len(held_out)}} held out, {{drawn - len(train) - len(held_out)}} too long for an answer")

# --- the run ----------------------------------------------------------------------------------------------------------

steps = {steps}
warmup = {warmup}


class Trainer(ORPOTrainer):
    def tokenize_row(self, row, model=None):
        return row


trainer = Trainer(
    model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(train),
    args=ORPOConfig(
        output_dir="trainer", beta={training.beta}, max_length={training.max_length},
        learning_rate={training.learning_rate}, lr_scheduler_type={schedule}, warmup_steps=warmup,
        num_train_epochs={training.epochs}, max_steps={max_steps},
        per_device_train_batch_size={training.batch_size}, gradient_accumulation_steps={training.accumulation},
        gradient_checkpointing={recompute}, optim={optimizer}, weight_decay={training.weight_decay}, max_grad_norm={training.max_grad_norm},
        bf16=on_gpu and dtype == torch.bfloat16, fp16=on_gpu and dtype == torch.float16, use_cpu=not on_gpu, disable_dropout=False,
        seed={training.seed}, logging_steps=1, save_strategy="no", report_to={report_to}))


@torch.no_grad()
def measure():
    """Loss, accuracy and margin of the held-out pairs. Every token of them weighs the same, as in the run; TRL's are batches' means."""
    model.eval()
    found = []
    for row in held_out:
        batch = trainer._prepare_inputs(trainer.data_collator([row]))
        figures = trainer.get_batch_loss_metrics(model, batch, "eval")[1]
        found.append((len(row["chosen_input_ids"]) - 1, *(figures["eval_" + name] for name in (
            "nll_loss", "log_odds_ratio", "rewards/accuracies", "rewards/margins"))))
    tokens, nll, odds, right, margins = map(torch.tensor, zip(*found))
    loss = (tokens * nll).sum() / tokens.sum() - {training.beta} * odds.mean()
    print(f"held out: loss {{loss:.4f}}, accuracy {{right.mean():.4f}}, margin {{margins.mean():.4f}}")


if held_out:
    measure()
trainer.train()
if held_out:
    measure()
model.save_pretrained("adapter", save_embedding_layers=False)
tokenizer.save_pretrained("adapter")

# --- the whole model, in 16 bits --------------------------------------------------------------------------------------

del trainer, model
whole = AutoModelForCausalLM.from_pretrained(**base, dtype={merge_dtype})
PeftModel.from_pretrained(whole, "adapter").merge_and_unload(safe_merge=True).save_pretrained("merged")
tokenizer.save_pretrained("merged")
if asked.push_to:
    api = HfApi()
    api.create_repo(asked.push_to, private=True, exist_ok=True)
    api.upload_folder(repo_id=asked.push_to, folder_path="merged")
'''

AUTO = "torch.float32 if not on_gpu else torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16"
ON_GPU = {"auto": "torch.cuda.is_available()", "gpu": "True", "cpu": "False"}


def render(settings: Settings, practice: str = "assets/practice/model") -> str:
    """The script; `practice` is where the practice model lies.

    Raises SettingsError for what TRL's trainer cannot be told, by field name.
    """
    model, adapter, training, data = settings.model, settings.adapter, settings.training, settings.data
    _refuse_what_only_the_studio_does(settings)
    named = [name.strip() for name in adapter.target_modules.split(",") if name.strip()]
    return SCRIPT.format(
        model=repr(practice if model.name == PRACTICE else model.name), revision=repr(model.revision or None),
        adapter=adapter, training=training, data=data, packages=_packages(settings),
        on_gpu=ON_GPU[model.device], dtype=AUTO if model.compute_dtype == "auto" else f"torch.{model.compute_dtype}",
        bits_import=", BitsAndBytesConfig" if model.quantization != "none" else "", bits=_bits(settings),
        template=_chatml() if model.template == "chatml" else "",
        targets=repr("all-linear" if named == ["all-linear"] else named), bias=repr(adapter.bias),
        rows=f"[:{data.rows}]" if data.rows else "", split=_split(data.held_out), steps=_steps(training), warmup=_warmup(training),
        max_steps=training.max_steps or -1, schedule=repr(training.schedule), recompute=training.gradient_checkpointing != "none",
        optimizer=repr(training.optimizer), report_to=repr(training.report_to),
        merge_dtype="torch.float16" if model.compute_dtype == "float16" else "torch.bfloat16")


def _split(share: float) -> str:
    """`plan.held_out_for` as a script's lines."""
    if not share:
        return ""
    least = f"min({plan.LEAST_HELD_OUT}, len(train) // {plan.MOST_HELD_OUT})"
    return (f"if not held_out:\n    count = min(max(round(len(train) * {share}), {least}), len(train) - 1)\n"
            "    train, held_out = (train[count:], train[:count]) if count > 1 else (train, [])\n")


def _steps(training: TrainingSettings) -> str:
    """`plan.steps_for` as an expression."""
    each = f"max(1, math.ceil(math.ceil(len(train) / {plan.pairs_a_step(training)}) * {training.epochs}))"
    return str(training.max_steps or each)


def _warmup(training: TrainingSettings) -> str:
    """`plan.warmup_for` as an expression."""
    wanted = training.warmup_steps
    if training.schedule == "constant":
        return "0"
    share = wanted if wanted < 1 else plan.WARMUP
    short = f"min(math.ceil({share} * steps), math.floor({max(share, plan.ROUNDED_UP)} * steps))"
    return short if wanted < 1 else f"{int(wanted)} if {wanted} <= {plan.LONGEST_WARMUP} * steps else {short}"


def _refuse_what_only_the_studio_does(settings: Settings) -> None:
    problems = {}
    if settings.training.nll_on != "sequence":
        problems["training.nll_on"] = "TRL learns to tell the whole sequence. Choose sequence for a script."
    if settings.evaluation.keep == "best":
        problems["evaluation.keep"] = "A script keeps the last step's weights. Choose last for a script."
    if settings.adapter.start_from:
        problems["adapter.start_from"] = "A script begins with a fresh adapter. Leave this empty for a script."
    for field, parts in (("data.weight", settings.data.parts[:1]), ("data.also", settings.data.parts[1:])):
        if any(part.weight > 1 for part in parts):
            problems[field] = "A script takes each pair once. Choose weights up to 1 for a script."
    if problems:
        raise SettingsError(problems)


def _packages(settings: Settings) -> str:
    needs_bits = settings.model.quantization != "none" or "8bit" in settings.training.optimizer or "paged" in settings.training.optimizer
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    wanted = [name for name in PACKAGES if name != "bitsandbytes" or needs_bits]
    return " ".join([*(line for line in lines if line.split("==")[0] in wanted), f"trl=={TRL}"])


def _bits(settings: Settings) -> str:
    if settings.model.quantization == "none":
        return ""
    if settings.model.quantization == "int8":
        return ",\n    quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
    return (",\n    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=\"nf4\", "
            f"bnb_4bit_use_double_quant={settings.model.double_quantization},\n"
            "                                           bnb_4bit_compute_dtype=dtype)")


def _chatml() -> str:
    return f'''chatml = {_constant("vocabulary.py", "CHATML")!r}
if "<|im_end|>" in tokenizer.get_vocab():
    tokenizer.eos_token = "<|im_end|>"
tokenizer.chat_template = chatml.replace("<|im_end|>", tokenizer.eos_token)  # a base without it ends turns with its own end
'''


def _constant(file: str, name: str) -> str:
    """A text of the engine, read and not imported: the page has no torch."""
    tree = python_source.parsed(ENGINE / file)
    (found,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name]
    return ast.literal_eval(found)
