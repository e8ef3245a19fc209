"""Bases that cannot be trained: quantized by somebody else, of another kind, without a vocabulary. Told by config, before weights are fetched."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from studio import events, jobs, model_files, python_source, runs
from studio.engine.duet import Duet
from studio.engine.forecast import forecast
from studio.engine.merge import merge
from studio.engine.model import load_base
from studio.engine.vocabulary import load_tokenizer
from studio.engine.worker import Desk
from studio.errors import StudioError
from studio.jobs import Queue
from studio.practice import MODEL
from studio.settings import ModelSettings
from studio.shape import Shapes
from studio.ui.fit_card import shown
from studio.ui.studio import Studio
from studio.ui.train_tab import begin
from tests.families import FAMILIES
from tests.hub_server import Hub
from tests.jobs_at_work import ended, heard, log_of, practice, until
from tests.tiny_models import saved, tiny_model
from tests.tiny_run import tiny_base, tuned_run


def compressed(kind: str, bits: int) -> dict:
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": "channel", "dynamic": False}
    return {"quant_method": "compressed-tensors", "format": f"{kind}-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


FP8 = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}}
QUANTIZED = {
    "fp8": FP8,
    "fp8 (compressed-tensors)": {"quantization_config": compressed("float", 8)},
    "int8 (compressed-tensors)": {"compression_config": compressed("int", 8)},
    "int4 (compressed-tensors)": {"text_config": {"quantization_config": compressed("int", 4)}},
    "bitsandbytes (4 bits)": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
    "bitsandbytes (8 bits)": {"quantization_config": {"load_in_8bit": True}},  # as older files say it, without a method
    "gptq (4 bits)": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "awq (4 bits)": {"quantization_config": {"quant_method": "awq", "w_bit": 4}},
    "mxfp4": {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}},
    "a method of next year": {"quantization_config": {"quant_method": "a method of next year"}},
    "4 bits": {"quantization": {"group_size": 64, "bits": 4}},  # MLX
    "8 bits": {"quantization_bit": 8},
}


def said_to_be(folder: Path, **config) -> Path:
    """A copy of the practice model whose config says so."""
    shutil.copytree(MODEL, folder)
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**told, **config}), encoding="utf-8")
    return folder


def with_maps(folder: Path, change) -> Path:
    """Each linear map of the layers replaced by what `change` gives for its name and weight."""
    found = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        found |= change(name, weight.float()) if weight.dim() == 2 and "proj" in name else {name: weight}
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def in_8_bits(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 448
    return {name: (weight / scale).to(torch.float8_e4m3fn), name.replace("weight", "weight_scale"): scale.to(torch.bfloat16)}


def refusal(name: str | Path, **settings) -> str:
    """What loading a base is refused with."""
    with pytest.raises(StudioError) as refused:
        load_base(model := ModelSettings(name=str(name), **settings), load_tokenizer(model))
    return str(refused.value)


# --- by config alone --------------------------------------------------------------------------------------------------


ASKING = """
import json, sys
from studio.engine import snapshot
from studio.errors import StudioError
from studio.settings import ModelSettings
from studio.shape import Shapes

def told(use, name):
    try: use(ModelSettings(name=name))
    except StudioError as error: return str(error)

print(json.dumps({name: [told(use, name) for use in (snapshot.of, Shapes().find)] for name in sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Every base of these tests on a Hub, asked for by the engine and by the page: what both said of each, and the files that were fetched.

    In a process of its own: the Hub's client reads its address when it is imported.
    """
    folder = tmp_path_factory.mktemp("bases")
    with Hub() as hub:
        for place, config in enumerate([*QUANTIZED.values(), *(config for config, _ in OTHERS.values())]):
            hub.add_model(f"someone/odd-{place}", said_to_be(folder / str(place), **config))
        named = said_to_be(folder / "named", **FP8)
        (named / "README.md").write_text("---\nbase_model:\n- someone/plain-8b\n---\nSmaller.", encoding="utf-8")
        hub.add_model("someone/plain-8b-FP8", named)
        hub.add_model("someone/gguf", gguf(folder / "gguf"))
        done = subprocess.run([sys.executable, "-c", ASKING, *hub.repos], cwd=jobs.PROJECT, env=os.environ | {"HF_ENDPOINT": hub.url},
                              capture_output=True, text=True, check=True, encoding="utf-8")
        yield json.loads(done.stdout.splitlines()[-1]), [path for _, path in hub.requests if "/resolve/" in path]


def gguf(folder: Path) -> Path:
    """A repository for llama.cpp, with a config beside its one file."""
    folder.mkdir()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(100))
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return folder


@pytest.mark.fault("T88")
@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_base_that_comes_prequantized_is_refused_by_the_name_of_its_method(kind, asked):
    engine, page = asked[0][f"someone/odd-{list(QUANTIZED).index(kind)}"]
    assert f" comes quantized as {kind}, and" in engine and "Choose the model from which it was made" in engine
    assert engine == page


def test_of_prequantized_bases_and_other_kinds_no_weights_are_fetched(asked):
    assert [path for path in asked[1] if path.endswith("config.json")]
    assert not [path for path in asked[1] if path.endswith((".safetensors", ".gguf"))]


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_a_prequantized_base_is_also_known_by_the_file_beside_its_config(file, tmp_path):
    (said_to_be(tmp_path / "base") / file).write_text('{"bits": 4}', encoding="utf-8")
    assert f"comes quantized as {file} describes" in refusal(tmp_path / "base")


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}, {"quantization_bit": 0},
                                    {"use_cache_quantization": False}, {"compression_ratio": 4}, {"text_config": {"rope_scaling": {}}}])
def test_a_base_that_is_not_quantized_is_not_refused_as_prequantized(config):
    model_files.refuse("someone/plain", json.loads((MODEL / "config.json").read_text(encoding="utf-8")) | config, ["config.json"])


def test_a_prequantized_base_names_the_model_from_which_it_was_made(asked, tmp_path):
    for told in asked[0]["someone/plain-8b-FP8"]:
        assert "comes quantized as fp8, and" in told and "Choose someone/plain-8b, from which it was made" in told
    said_to_be(tmp_path / "other", _name_or_path="someone/plain-8b", **FP8)
    assert "Choose someone/plain-8b, from which it was made" in refusal(tmp_path / "other")


def test_a_run_on_a_prequantized_base_ends_before_weights_are_fetched_and_anything_is_trained(hub, tmp_path):
    hub.add_model("someone/small", with_maps(said_to_be(tmp_path / "base", **FP8), in_8_bits))
    run = runs.create(tmp_path / "runs", practice(**{"model.name": "someone/small", "model.quantization": "nf4"}))
    jobs.start(jobs.of(run))
    assert ended(run) == "failed", log_of(run)
    assert "someone/small comes quantized as fp8," in heard(run, events.Failed)[0].reason
    assert not heard(run, events.Stepped) and not [path for method, path in hub.requests if path.endswith(".safetensors")]


def test_a_prequantized_base_is_told_on_the_card_above_start_and_by_two_steps(tmp_path):
    base = with_maps(said_to_be(tmp_path / "base", **FP8), in_8_bits)
    studio, settings = Studio(tmp_path, Queue(tmp_path)), practice(**{"model.name": str(base)})
    assert "comes quantized as fp8" in shown(studio, settings.to_form())
    with pytest.raises(StudioError, match="comes quantized as fp8"):
        begin(studio, settings)
    assert not studio.runs()
    job = jobs.trial_of(tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / "request.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    jobs.start(job)
    until(lambda: jobs.status(job) in jobs.OVER)
    assert "comes quantized as fp8" in events.last(events.read(job.log), events.Failed).reason


def test_chat_merge_and_doctor_refuse_a_base_that_has_become_prequantized(tmp_path):
    base = tiny_base(tmp_path / "base")
    run = tuned_run(tmp_path / "runs", base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | FP8), encoding="utf-8")
    run.job("merge").mkdir()
    for use in (lambda: Duet(run), lambda: merge(Desk(run.job("merge")))):
        with pytest.raises(StudioError, match="comes quantized as fp8"):
            use()
    assert "comes quantized as fp8" in forecast(run.settings, [], 0, None).why_not


# --- by what is stored, where the config keeps silent -----------------------------------------------------------------


@pytest.mark.fault("T88")
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_prequantized_weights_without_a_word_in_the_config_are_known_by_their_type(quantization, tmp_path):
    base = with_maps(said_to_be(tmp_path / "base"), in_8_bits)
    assert "comes quantized: 21 of its tensors" in (told := refusal(base, quantization=quantization)) and "F8_E4M3" in told
    with pytest.raises(StudioError, match="stored as F8_E4M3"):
        Shapes().find(ModelSettings(name=str(base)))


def test_prequantized_whole_numbers_are_no_weights_and_masks_and_positions_are_none():
    for kind, shape in (("I8", (8, 8)), ("U8", (64, 1)), ("I32", (8, 8)), ("F8_E8M0", (4, 4)), ("F4", (8,)), ("U8", (4, 8, 8))):
        stored = [("a.weight", shape, kind), ("b.weight", (8, 8), "BF16")]
        if kind == "U8" and shape == (64, 1):
            model_files.refuse_stored("someone/odd", stored)  # a vector: a state of bitsandbytes, whose weights are there as well
            continue
        with pytest.raises(StudioError, match="comes quantized: 1 of its tensors, such as a.weight"):
            model_files.refuse_stored("someone/odd", stored)
    model_files.refuse_stored("openai/gpt2", [("h.0.attn.bias", (1, 1, 1024, 1024), "U8"), ("position_ids", (1, 512), "I64")])


def test_prequantized_scales_that_find_no_place_are_not_passed_over(tmp_path):
    def cast(name, weight):
        return {key: value.to(torch.bfloat16) / (448 if key == name else 1) for key, value in in_8_bits(name, weight).items()}

    told = refusal(with_maps(said_to_be(tmp_path / "base"), cast))
    assert "holds 21 weights that have no place" in told and "q_proj.weight_scale" in told or "weight_scale" in told


def test_prequantized_numbers_that_have_lost_their_scales_are_known_by_their_size(tmp_path):
    base = with_maps(said_to_be(tmp_path / "base"), lambda name, weight: {name: in_8_bits(name, weight)[name].to(torch.bfloat16)})
    assert "are out of every normal scale" in refusal(base) and "out of every normal scale" in refusal(base, quantization="nf4")


def test_a_part_that_is_not_the_language_model_is_said_and_not_refused_as_prequantized(tmp_path):
    base, words = said_to_be(tmp_path / "base"), []
    tensors = load_file(base / "model.safetensors")
    save_file(tensors | {"visual.patch.weight": torch.ones(4, 4)}, base / "model.safetensors", metadata={"format": "pt"})
    load_base(model := ModelSettings(name=str(base)), load_tokenizer(model), remark=words.append)
    assert words == [f"1 tensors of {base} are not part of the language model that is trained, such as visual.patch.weight."]


@pytest.mark.parametrize("name", ["Mistral, sliding window", "Gemma 3", "GPT-2", "Mixtral", "GPT-NeoX", "Bloom"])
def test_models_of_other_families_are_loaded_as_before_and_none_is_taken_for_prequantized(name, tmp_path):
    family, changes = FAMILIES[name]
    base, words = saved(tiny_model(family, **changes), tmp_path / "base"), []
    load_base(model := ModelSettings(name=str(base)), load_tokenizer(model), remark=words.append)
    assert not words


# --- of another kind --------------------------------------------------------------------------------------------------

OTHERS = {
    "takes images": ({"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "vision_config": {"depth": 2}},
                     "is a model of the kind qwen2_5_vl, which also takes images"),
    "an encoder and a decoder": ({"model_type": "t5", "is_encoder_decoder": True, "architectures": ["T5ForConditionalGeneration"]},
                                 "is an encoder-decoder model (t5)"),
    "matches texts with images": ({"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": {"hidden_size": 8}},
                                  "is a model of the kind clip"),
    "gives classes": ({"architectures": ["LlamaForSequenceClassification"]}, "is a model for another task (LlamaForSequenceClassification)")}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_of_another_kind_is_refused_as_a_prequantized_one_is(kind, asked):
    engine, page = asked[0][f"someone/odd-{len(QUANTIZED) + list(OTHERS).index(kind)}"]
    assert f" {OTHERS[kind][1]}" in engine and engine == page


def test_what_transformers_loads_as_a_language_model_is_read_from_its_source_as_it_says_itself():
    assert model_files.causal_types() == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {"t5", "clip", "qwen2_5_vl", "llama"} <= model_files.known_types()


def test_trees_of_sources_are_made_one_at_a_time_and_once(tmp_path, monkeypatch):
    """CPython 3.11 raised SystemError when several people pressed Start in the first second of a page."""
    files = [tmp_path / f"{place}.py" for place in range(4)]
    for file in files:
        file.write_text("TABLE = ('a', 'b')\n", encoding="utf-8")
    real, at_work, most, made = ast.parse, [], [], []

    def parse(text):
        at_work.append(text)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.pop()
        made.append(text)
        return real(text)

    monkeypatch.setattr(ast, "parse", parse)
    with ThreadPoolExecutor(12) as pool:
        trees = list(pool.map(python_source.parsed, files * 3))
    assert max(most) == 1 and all(isinstance(tree, ast.Module) for tree in trees)
    assert len(made) == len(files)


def test_a_repository_of_prequantized_gguf_files_with_a_config_is_told_as_what_it_is(asked, tmp_path):
    words = "holds a GGUF file, which cannot be trained on. Choose the repository that it was made from"
    assert all(words in told for told in asked[0]["someone/gguf"])
    assert words in refusal(gguf(tmp_path / "gguf"))


@pytest.mark.parametrize(("there", "told"), [(["tokenizer.model"], r"SentencePiece model \(tokenizer.model\)"), ([], "there is no tokenizer.json")])
@pytest.mark.parametrize("kind", ["LlamaTokenizer", "Qwen2Tokenizer", "TokenizersBackend"])
def test_a_vocabulary_that_is_not_there_or_only_a_sentencepiece_model_is_told_and_never_taken_for_an_empty_one(there, told, kind, tmp_path):
    base = said_to_be(tmp_path / "base")
    (base / "tokenizer.json").unlink()
    described = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    (base / "tokenizer_config.json").write_text(json.dumps(described | {"tokenizer_class": kind}), encoding="utf-8")
    for name in there:
        (base / name).write_bytes(b"\n\x0e")
    for use in (load_tokenizer, Shapes().find):
        with pytest.raises(StudioError, match=f"{told}.*Choose a repository of the same model that has a tokenizer.json"):
            use(ModelSettings(name=str(base)))
