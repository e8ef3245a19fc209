"""What leaves the studio is read alike by a transformers of another generation, in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from studio import parcel, spellings
from studio.engine.merge import merge
from studio.engine.worker import Desk
from studio.practice import MODEL
from tests.tiny_models import SIZES, saved, tiny_model
from tests.tiny_run import tiny_base, tuned_run

OLDER = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2", "peft==0.18.1")
"""The last of transformers 4, with what belongs to it. torch and all else are those that are installed."""
SCALED = {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 256}
FAMILIES = {
    "Llama 3.1": ("llama", {"rope_theta": 500000.0, "rope_scaling": SCALED}),
    "Qwen2": ("qwen2", {"rope_theta": 1000000.0}),
    "Qwen3": ("qwen3", {"rope_theta": 1000000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}}),
    "Mistral": ("mistral", {"rope_theta": 1000000.0, "sliding_window": None}),
    "Gemma 2": ("gemma2", {"query_pre_attn_scalar": 16, "sliding_window": 16}),
    "Gemma 3": ("gemma3_text", {"query_pre_attn_scalar": 16, "sliding_window": 16, "rope_local_base_freq": 5000.0,
                                "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "Phi-3": ("phi3", {"original_max_position_embeddings": 128, "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}})}
TEXTS = ["Hello, what is the capital of France?", "  two  spaces and 12345.67\n\n\tdef f(x): return x**2", "Ärger, naïve café, 中文字 ½ 🙂"]

MAKES = """
import json, shutil, sys
from pathlib import Path
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
families, sizes, practice = json.load(open("families.json", encoding="utf-8"))
for name, (kind, changes) in families.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**sizes, **changes})
    AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16).save_pretrained(name)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=practice + "/tokenizer.json", eos_token="<|im_end|>", pad_token="<|pad|>",
                                        additional_special_tokens=["<|im_start|>"], model_max_length=512)
    tokenizer.chat_template = Path(practice, "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.save_pretrained(name)
"""

READS = """
import json, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__.startswith("4.57")
asked, found = json.load(open("asked.json", encoding="utf-8")), {}
for name, (folder, base) in asked["folders"].items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base or folder, dtype=torch.float32, attn_implementation="eager")
    if base:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        heard = model.eval()(torch.arange(10, 210)[None]).logits[0, -1].log_softmax(-1)
    talk = tokenizer.apply_chat_template([{"role": "user", "content": asked["texts"][0]}], add_generation_prompt=True)
    found[name] = {"class": type(tokenizer).__name__, "ids": tokenizer(asked["texts"])["input_ids"], "talk": talk, "heard": heard.tolist(),
                   "special": sorted(tokenizer.all_special_tokens), "stops": getattr(model.generation_config, "eos_token_id", None),
                   "rope": [getattr(model.config, "rope_theta", None), getattr(model.config, "rope_scaling", None)]}
json.dump(found, open("found.json", "w", encoding="utf-8"))
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """Runs a program in a folder with the older libraries; they are fetched once, beside the torch that is installed."""
    libraries = tmp_path_factory.mktemp("older")
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # the guard of the tests lets nobody out
    fetched = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(libraries), *OLDER],
                             env=outside, capture_output=True, text=True, encoding="utf-8", timeout=280)
    if fetched.returncode:
        pytest.skip(f"The package index gave no {OLDER[0]}: {fetched.stderr[-200:]}")

    def run(program: str, folder: Path) -> None:
        done = subprocess.run([sys.executable, "-P", "-c", program], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=280,
                              env=os.environ | {"PYTHONPATH": os.pathsep.join([str(libraries), str(Path(__file__).parent / "guard")])})
        assert done.returncode == 0, done.stderr[-3000:]
    return run


def taken_away(run, what: str, folder: Path) -> Path:
    """An adapter or merged model as whoever downloads or pulls it has it."""
    folder.mkdir()
    for name, content in parcel.contents(run, what, "tuned").items():
        (folder / name).write_bytes(content) if isinstance(content, bytes) else shutil.copyfile(content, folder / name)
    return folder


def made(root: Path, name: str, base: Path) -> dict[str, tuple[str, str | None]]:
    """Adapter and merged model of a run on a base, taken away: their folders and what the adapter needs."""
    run = tuned_run(root / f"runs of {name}", base)
    run.job("merge").mkdir()
    merge(Desk(run.job("merge")))
    return {f"{name}, merged": (str(taken_away(run, "merged", root / f"{name} merged")), None),
            f"{name}, adapter": (str(taken_away(run, "adapter", root / f"{name} adapter")), str(base))}


@pytest.fixture(scope="module")
def read(older, tmp_path_factory):
    """What the older library reads of adapters and merged models, and what the present one does: of bases that either has written."""
    root = tmp_path_factory.mktemp("elsewhere")
    (root / "families.json").write_text(json.dumps([FAMILIES, SIZES, str(MODEL)]), encoding="utf-8")
    older(MAKES, root)
    folders = {}
    for name in FAMILIES:
        folders |= made(root, name, root / name)
    for name, (kind, changes) in FAMILIES.items():
        folders |= made(root, f"new {name}", saved(tiny_model(kind, **deepcopy(changes)).to(torch.bfloat16), root / f"new {name}"))
    folders |= made(root, "practice", Path(MODEL))
    (root / "asked.json").write_text(json.dumps({"folders": folders, "texts": TEXTS}), encoding="utf-8")
    older(READS, root)
    return folders, json.loads((root / "found.json").read_text(encoding="utf-8"))


NAMES = [f"{name}, {what}" for name in (*FAMILIES, "practice") for what in ("merged", "adapter")] + \
    [f"new {name}, merged" for name in FAMILIES]  # such a base itself is read otherwise, and with it an adapter's


@pytest.mark.fault("T87")
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_transformers_4_57_reads_the_same_tokens_positions_and_answers(read, name):
    folder, base = read[0][name]
    found = read[1][name]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert found["class"].endswith("Fast") and found["ids"] == tokenizer(TEXTS)["input_ids"]
    assert found["talk"] == tokenizer.apply_chat_template([{"role": "user", "content": TEXTS[0]}], add_generation_prompt=True)["input_ids"]
    assert found["special"] == sorted(tokenizer.all_special_tokens)
    model = AutoModelForCausalLM.from_pretrained(base or folder, dtype=torch.float32, attn_implementation="eager")
    if base:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        expected = model.eval()(torch.arange(10, 210)[None]).logits[0, -1].log_softmax(-1)
    assert (torch.tensor(found["heard"]) - expected).abs().max() < 1e-4
    if not base:
        family = name.removeprefix("new ").partition(",")[0]
        wanted = FAMILIES.get(family, ("", {}))[1]
        assert found["rope"][0] == wanted.get("rope_theta", found["rope"][0])
        assert {**(found["rope"][1] or {}), **wanted.get("rope_scaling", {})} == (found["rope"][1] or {})
        assert tokenizer.eos_token_id == (found["stops"][0] if isinstance(found["stops"], list) else found["stops"])


# --- what stands in the files, seen without the other library ----------------------------------------------------------


def older_config(folder: Path) -> Path:
    """The practice model with positions as configs of transformers 4 state them, scaled as Llama 3.1's are."""
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 500000.0, "rope_scaling": SCALED}))
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.fixture(scope="module")
def carried(tmp_path_factory):
    """A run on a base with an older config, merged."""
    root = tmp_path_factory.mktemp("carried")
    base = older_config(root / "older-config")
    (base / "preprocessor_config.json").write_text('{"image_processor_type": "Gemma3ImageProcessor"}')
    run = tuned_run(root / "runs", base)
    run.job("merge").mkdir()
    merge(Desk(run.job("merge")))
    return run


@pytest.mark.fault("T87")
def test_a_merged_model_s_config_says_its_positions_and_numbers_under_newer_and_older_names(carried):
    config = json.loads((carried.merged / "config.json").read_text())
    assert (config["rope_theta"], config["rope_scaling"]) == (500000.0, SCALED)
    assert config["rope_parameters"] == SCALED | {"rope_theta": 500000.0}
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert AutoConfig.from_pretrained(carried.merged).rope_parameters == SCALED | {"rope_theta": 500000.0}


@pytest.mark.fault("T87")
@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_the_tokenizer_s_files_are_the_base_s_and_name_a_class_that_both_generations_know(carried, what):
    folder = {"adapter": carried.adapter, "merged": carried.merged}[what]
    described = json.loads((folder / "tokenizer_config.json").read_text())
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"is_local", "local_files_only", "backend", "extra_special_tokens"} & described.keys()
    assert described["additional_special_tokens"] == ["<|im_start|>"]
    assert described["chat_template"] == (folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert (folder / "tokenizer.json").read_bytes() == (MODEL / "tokenizer.json").read_bytes()


def test_a_base_s_processor_travels_with_the_merged_model(carried):
    assert "preprocessor_config.json" in parcel.contents(carried, "merged", "tuned")


def test_generation_settings_are_the_base_s_with_the_end_of_a_turn(carried):
    was, now = (json.loads((folder / "generation_config.json").read_text()) for folder in (MODEL, carried.merged))
    assert now == was | {"eos_token_id": [2], "pad_token_id": 0}


def test_what_an_older_version_of_the_studio_left_is_handed_on_in_words_that_both_know(carried, tmp_path):
    shutil.copytree(carried.folder, tmp_path / carried.name)
    run = type(carried)(tmp_path / carried.name)
    config = json.loads((run.merged / "config.json").read_text())
    for name in ("rope_theta", "rope_scaling", "torch_dtype"):
        del config[name]
    (run.merged / "config.json").write_text(json.dumps(config))
    AutoTokenizer.from_pretrained(run.merged).save_pretrained(run.merged)
    assert json.loads((run.merged / "tokenizer_config.json").read_text())["tokenizer_class"] == "TokenizersBackend"
    handed = parcel.contents(run, "merged", "tuned")
    assert json.loads(handed["config.json"])["rope_theta"] == 500000.0 and json.loads(handed["config.json"])["rope_scaling"] == SCALED
    described = json.loads(handed["tokenizer_config.json"])
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast" and "is_local" not in described


def test_what_older_names_say_is_left_as_the_base_says_it_and_the_rest_is_added():
    scaling = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0], "long_factor": [2.0], "original_max_position_embeddings": 64}
    assert spellings.of_config({"rope_scaling": scaling, "rope_parameters": rope})["rope_scaling"] == scaling
    assert spellings.of_config({"rope_parameters": rope})["rope_scaling"] == scaling
    told = spellings.of_config({"text_config": {"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}})
    assert told["text_config"]["rope_theta"] == 1e6 and told["text_config"]["rope_local_base_freq"] == 1e4
    assert told["text_config"]["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    assert spellings.of_config(told) == told
    assert spellings.of_config({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}) == {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}, "rope_theta": 1e4,
        "partial_rotary_factor": 0.5, "rope_scaling": None}


def test_a_tokenizer_that_would_be_read_otherwise_is_saved_as_the_library_has_it(tmp_path):
    run = tuned_run(tmp_path / "runs", tiny_base(tmp_path / "base", chatml=False), added=True, **{"model.template": "chatml"})
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(tmp_path / "base")) + 2
    assert json.loads((run.adapter / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
