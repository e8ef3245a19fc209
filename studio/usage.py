"""How an adapter, merged model or GGUF file is used elsewhere: Python and commands that run as they stand, for card and page."""

import json
from typing import Literal

from studio import gguf_file
from studio.lineage import base_commit, base_config, hub_base
from studio.runs import Run

What = Literal["adapter", "merged", "gguf"]

BASE = "path/to/the/base"
"""Stands in a snippet for a base that only this machine has."""
MARKS = ("<|im_start|>", "<|im_end|>")
"""The tokens that older versions added to a base for ChatML."""
LARGEST_RANK = 512
"""vLLM's limit for an adapter's rank."""


def section(run: Run, what: What, repo: str, base: str) -> str:
    """The card's section on use; `base` names the base in Markdown."""
    if what == "gguf":
        file = gguf_file.of(run)
        return (f"## Use\n\nWith llama.cpp: `llama-server -hf {repo}`\n\nWith llama-cpp-python:\n\n```python\n"
                f"{of_file(repo, file.name if file else '*.gguf')}```")
    packages = "transformers accelerate" + " peft" * (what == "adapter")
    parts = ["## Use", f"With `pip install {packages}`:"]
    if what == "adapter" and not hub_base(run):
        parts.append(f"The base is not on the Hub: it is {base}. Put your copy of it in place of `{BASE}`.")
    parts.append(f"```python\n{snippet(run, what, repo)}```")
    if begun := unlearned(run):
        told = json.dumps(begun, ensure_ascii=False)
        parts.append(f"The chat template begins an answer with `{told}` when it asks for one, and no answer that was learned begins so: "
                     "the code above takes it away. Pipelines and servers do not, and the model answers there as it was not trained.")
    elif what == "merged" or hub_base(run):
        newest = ", which takes the base as it is now" if what == "adapter" and base_commit(run) else ""
        parts.append(f"Or as a pipeline{newest}:\n\n```python\n{pipeline(repo)}```")
    return "\n\n".join([*parts, vllm(run, what, repo)])


def snippet(run: Run, what: What, where: str, local_base: str = BASE) -> str:
    """Python that answers with what lies at `where`, a repository or a folder; `local_base` is the path of a base that has no Hub id."""
    from_where = json.dumps(where, ensure_ascii=False)  # a folder's name may hold anything
    peft, loaded = "", f'model = AutoModelForCausalLM.from_pretrained({from_where}, dtype="auto", device_map="auto")'
    if what == "adapter":
        commit = base_commit(run)
        pinned = f', revision="{commit}"' if commit else ""
        peft = "from peft import PeftModel\n"
        base = json.dumps(hub_base(run) or local_base, ensure_ascii=False)
        loaded = (f'base = AutoModelForCausalLM.from_pretrained({base}{pinned}, dtype="auto", device_map="auto")\n'
                  f"model = PeftModel.from_pretrained(base, {from_where})")
    asked = 'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")'
    if begun := unlearned(run):
        asked = (f"text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False).removesuffix({begun!r})\n"
                 'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")')
    return f"""{peft}from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({from_where})
{loaded}
messages = [{{"role": "user", "content": "Hello!"}}]
{asked}
answer = model.generate(**inputs.to(model.device), max_new_tokens=256, eos_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def pipeline(repo: str) -> str:
    """Python that answers with a repository as a pipeline of transformers, which for an adapter would take the base's tokenizer."""
    return f"""from transformers import pipeline

pipe = pipeline("text-generation", model={json.dumps(repo)}, tokenizer={json.dumps(repo)}, dtype="auto", device_map="auto")
messages = [{{"role": "user", "content": "Hello!"}}]
answer = pipe(messages, max_new_tokens=256, eos_token_id=pipe.tokenizer.eos_token_id)
print(answer[0]["generated_text"][-1]["content"])
"""


def of_file(repo: str, name: str) -> str:
    """Python that answers with the GGUF file of that name in a repository; without one, in the folder that it runs in."""
    file = json.dumps(name, ensure_ascii=False)
    loaded = f"Llama.from_pretrained(repo_id={json.dumps(repo)}, filename={file}, n_ctx=0)" if repo else f"Llama({file}, n_ctx=0)"
    return f"""from llama_cpp import Llama

model = {loaded}
answer = model.create_chat_completion([{{"role": "user", "content": "Hello!"}}], max_tokens=256)
print(answer["choices"][0]["message"]["content"])
"""


def vllm(run: Run, what: What, repo: str) -> str:
    """The command that serves it with vLLM, or why there is none."""
    if what == "merged":
        return f"With vLLM: `vllm serve {repo}`"
    rank, targets = run.settings.adapter.rank, run.settings.adapter.target_modules
    why = ("its biases were trained too" if run.settings.adapter.bias != "none" else
           f"its rank is above {LARGEST_RANK}" if rank > LARGEST_RANK else
           "it changes the embeddings or the output layer" if "embed" in targets or "lm_head" in targets else "")
    if why:
        return f"vLLM does not load this adapter, because {why}. Serve the merged model instead."
    commit = base_commit(run)
    at = f" --revision {commit}" if commit and hub_base(run) else ""
    rounded = max(8, 1 << (rank - 1).bit_length())
    # Without --tokenizer vLLM writes chats with the base's template.
    return (f"With vLLM: `vllm serve {hub_base(run) or BASE}{at} --tokenizer {repo} --enable-lora --max-lora-rank {rounded} "
            f"--lora-modules tuned={repo}`")


def unlearned(run: Run) -> str:
    """How the template begins an answer though no answer that was learned begins so, as the training wrote it down; else empty."""
    try:
        found = json.loads((run.folder / "asking.json").read_text(encoding="utf-8")).get("unlearned")
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""


def needs_studio(run: Run) -> bool:
    """Whether an adapter was trained with tokens that were added to its base, as older versions did: their rows are not part of it."""
    try:
        told = json.loads((run.adapter / "tokenizer.json").read_text(encoding="utf-8"))
        ids = {token["content"]: token["id"] for token in told["added_tokens"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    if run.settings.model.template != "chatml" or not ids.keys() >= set(MARKS):
        return False
    config = base_config(run) or {}
    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    highest = max(ids[mark] for mark in MARKS)
    return highest >= rows if isinstance(rows, int) else highest == max(ids.values())
