"""A run's settings as a short Python script that needs no studio: TRL's ORPOTrainer takes the same steps from the same pairs."""

import ast
from pathlib import Path

from studio.errors import SettingsError
from studio.installed import REQUIREMENTS
from studio.settings import PRACTICE, Settings

TRL = "1.16.0"
"""With which the script has run; the reference that the engine's steps are compared with."""
PACKAGES = ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers")
ENGINE = Path(__file__).resolve().parent / "engine"

SCRIPT = '''"""Fine-tunes a language model with preference pairs by ORPO, as a run of ORPO Studio does, but with TRL alone.

    pip install {packages}
    python train.py

pairs.jsonl, in the folder that this runs in, holds the pairs: in the studio, under Data, "Take the cleaned pairs elsewhere" writes
it as a JSONL file. The adapter is written to the folder adapter.
"""

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer{bits_import}, set_seed
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

on_gpu = {on_gpu}
dtype = {dtype}

tokenizer = AutoTokenizer.from_pretrained({model}, revision={revision})
{template}if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
model = AutoModelForCausalLM.from_pretrained(
    {model}, revision={revision}, dtype=dtype, device_map="cuda" if on_gpu else "cpu"{bits})
model.requires_grad_(False)
set_seed({training.seed})  # of the adapter's first weights
model = get_peft_model(model, LoraConfig(
    r={adapter.rank}, lora_alpha={adapter.alpha}, lora_dropout={adapter.dropout}, bias={bias}, task_type="CAUSAL_LM",
    target_modules={targets}))

pairs = load_dataset("json", data_files="pairs.jsonl", split="train")
pairs = pairs.select_columns([name for name in pairs.column_names if name in ("prompt", "chosen", "rejected")])
pairs = pairs.shuffle(seed={data.seed}){rows}
{split}


class EndedOnce(ORPOTrainer):
    """TRL writes an end behind every answer; where the template has written one before its last line break, that one is enough."""

    def tokenize_row(self, *args, **options):
        row, end = super().tokenize_row(*args, **options), tokenizer.eos_token_id
        for side in ("chosen", "rejected"):
            answer = [token for token in row[side + "_labels"] if token != -100]
            if answer[-1:] == [end] and end in answer[:-1]:
                for part in ("_input_ids", "_attention_mask", "_labels"):
                    row[side + part] = row[side + part][:-1]
        return row


trainer = EndedOnce(
    model=model, processing_class=tokenizer, train_dataset=train{evaluated},
    args=ORPOConfig(
        output_dir="trainer", beta={training.beta}, max_length={training.max_length},
        learning_rate={training.learning_rate}, lr_scheduler_type={schedule}, warmup_steps={training.warmup_steps},
        num_train_epochs={training.epochs}, max_steps={steps},
        per_device_train_batch_size={training.batch_size}, gradient_accumulation_steps={training.accumulation},
        per_device_eval_batch_size={evaluation.batch_size}, gradient_checkpointing={recompute},
        optim={optimizer}, weight_decay={training.weight_decay}, max_grad_norm={training.max_grad_norm},
        bf16=on_gpu and dtype == torch.bfloat16, fp16=on_gpu and dtype == torch.float16, use_cpu=not on_gpu, disable_dropout=False,
        seed={training.seed}, logging_steps=1, save_strategy="no", report_to={report_to}))
trainer.train()
{measured}trainer.save_model("adapter")
'''

AUTO = "torch.float32 if not on_gpu else torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16"
ON_GPU = {"auto": "torch.cuda.is_available()", "gpu": "True", "cpu": "False"}


def render(settings: Settings, practice: str = "assets/practice/model") -> str:
    """The script; `practice` is where the practice model lies.

    Raises SettingsError for what TRL's trainer cannot be told, by field name.
    """
    model, adapter, training, data = settings.model, settings.adapter, settings.training, settings.data
    _refuse_what_only_the_studio_does(settings)
    chatml, held_out = model.template == "chatml", data.held_out > 0
    named = [name.strip() for name in adapter.target_modules.split(",") if name.strip()]
    return SCRIPT.format(
        model=repr(practice if model.name == PRACTICE else model.name), revision=repr(model.revision or None),
        adapter=adapter, training=training, data=data, evaluation=settings.evaluation, packages=_packages(settings),
        on_gpu=ON_GPU[model.device], dtype=AUTO if model.compute_dtype == "auto" else f"torch.{model.compute_dtype}",
        bits_import=", BitsAndBytesConfig" if model.quantization != "none" else "", bits=_bits(settings),
        template=_chatml() if chatml else "", targets=repr("all-linear" if named == ["all-linear"] else named), bias=repr(adapter.bias),
        rows=f".select(range(min({data.rows}, len(pairs))))" if data.rows else "",
        split=f"train, held_out = pairs.train_test_split(test_size={data.held_out}, seed={data.seed}).values()" if held_out
        else "train = pairs", evaluated=", eval_dataset=held_out" if held_out else "",
        measured="print(trainer.evaluate())\n" if held_out else "", schedule=repr(training.schedule), steps=training.max_steps or -1,
        recompute=training.gradient_checkpointing != "none", optimizer=repr(training.optimizer), report_to=repr(training.report_to))


def _refuse_what_only_the_studio_does(settings: Settings) -> None:
    problems = {}
    if settings.training.nll_on != "sequence":
        problems["training.nll_on"] = "TRL learns to tell the whole sequence. Choose sequence for a script."
    if settings.evaluation.keep == "best":
        problems["evaluation.keep"] = "A script keeps the last step's weights. Choose last for a script."
    if settings.adapter.start_from:
        problems["adapter.start_from"] = "A script begins with a fresh adapter. Leave this empty for a script."
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
    tree = ast.parse((ENGINE / file).read_text(encoding="utf-8"))
    (found,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name]
    return ast.literal_eval(found)
