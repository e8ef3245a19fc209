"""Fit, time and money: arithmetic held against what autograd keeps and against the peaks of real runs."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open

from studio import events, gpu, hardware, jobs, pace, plan, runs, two_steps
from studio.engine.orpo import head, memory, trainer
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded
from studio.errors import BusyError, StudioError
from studio.fit import ENOUGH, FRAGMENTS, TILE_BYTES, TOKENS_AT_ONCE, Kept, changed, fit, kept_by_a_layer, needed
from studio.jobs import Queue
from studio.practice import MODEL, PAIRS
from studio.presets import all_presets
from studio.settings import ModelSettings, Settings
from studio.shape import Shape, Shapes, described
from studio.ui.fit_card import shown
from studio.ui.studio import Studio
from tests.jobs_at_work import ended, practice, until
from tests.tiny_models import VOCABULARY, saved, tiny_model

GB = 10**9
LARGER = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10,
          "num_key_value_heads": 5, "head_dim": 64, "initializer_range": 0.02}


def llama_8b() -> Shape:
    """Llama-3-8B by its published config and the names of its tensors."""
    sizes = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096)}
    widened = {"gate_proj": (14336, 4096), "up_proj": (14336, 4096), "down_proj": (4096, 14336)}
    tensors = {"model.embed_tokens.weight": ((128256, 4096), "BF16"), "lm_head.weight": ((128256, 4096), "BF16"),
               "model.norm.weight": ((4096,), "BF16")}
    for layer in range(32):
        tensors |= {f"model.layers.{layer}.self_attn.{name}.weight": (size, "BF16") for name, size in sizes.items()}
        tensors |= {f"model.layers.{layer}.mlp.{name}.weight": (size, "BF16") for name, size in widened.items()}
        tensors |= {f"model.layers.{layer}.{name}.weight": ((4096,), "BF16") for name in ("input_layernorm", "post_attention_layernorm")}
    return described({"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                      "intermediate_size": 14336, "vocab_size": 128256}, tensors)


TUTORIAL = all_presets()["llama-3-8b-tutorial"].settings


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_the_trainers_own_figures_are_those_that_the_estimate_takes():
    assert (TOKENS_AT_ONCE, ENOUGH, TILE_BYTES, FRAGMENTS) == (
        trainer.TOKENS_AT_ONCE, trainer.ENOUGH, head.TILE_BYTES, memory.FRAGMENTS)
    assert trainer.Kept is Kept


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("rank", [4, 64])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2"])
def test_what_a_token_leaves_behind_is_what_autograd_keeps(family, rank, dropout, precision, tmp_path):
    model = tiny_model(family, hidden_size=128, intermediate_size=352)
    kept, estimate = kept_and_estimated(model, rank, dropout, precision, _pair(40, 80, 80), tmp_path)
    assert estimate == pytest.approx(kept, rel=0.15)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lengths", [(40, 80, 80), (200, 400, 400)])
def test_what_attention_with_a_softcap_leaves_behind_does_not_grow_with_the_pair(lengths, precision, tmp_path):
    """With wide heads, so that attention keeps half of it all."""
    model = tiny_model("gemma2", hidden_size=128, intermediate_size=352, num_attention_heads=8, head_dim=64, max_position_embeddings=2048)
    kept, estimate = kept_and_estimated(model, 4, 0.0, precision, _pair(*lengths), tmp_path)
    assert estimate == pytest.approx(kept, rel=0.15)


def kept_and_estimated(model, rank, dropout, precision, pair, folder) -> tuple[float, float]:
    """Bytes that one token leaves behind in all layers, measured and estimated."""
    model = model.to(getattr(torch, precision))
    shape = Shapes().find(ModelSettings(name=str(saved(model, folder))))
    tuned = get_peft_model(model.requires_grad_(False), LoraConfig(r=rank, lora_dropout=dropout, target_modules="all-linear"))
    settings = practice(**{"adapter.rank": rank, "adapter.dropout": dropout, "model.compute_dtype": precision})
    scorer = Scorer(tuned, filler=0)
    scorer.packed = True
    return memory.measure(scorer, pair).per_token, kept_by_a_layer(settings, shape, "cpu") * shape.layers


@pytest.mark.parametrize(("family", "blockwise"), [("gemma2", True), ("gpt_oss", True), ("gemma3_text", False), ("llama", False)])
def test_a_model_whose_attention_has_a_softcap_or_sinks_is_known_by_its_config_and_tensors(family, blockwise, tmp_path):
    assert Shapes().find(ModelSettings(name=str(saved(tiny_model(family), tmp_path)))).blockwise == blockwise


def _pair(prompt: int, chosen: int, rejected: int) -> Encoded:
    start, better, worse = (np.random.default_rng(seed).integers(3, VOCABULARY, size) for seed, size in enumerate((prompt, chosen, rejected)))
    return Encoded(prompt, np.concatenate([start, better]), np.concatenate([start, worse]))


def test_llama_3_8b_in_4_bits_needs_about_what_it_is_known_to_need():
    need = needed(TUTORIAL, llama_8b(), 24 * GB, "cuda", least=True)
    assert need.model == pytest.approx(0.516 * 6.98e9 + 2 * 1.05e9, rel=0.01)
    assert need.adapter + need.optimizer == pytest.approx(41.9e6 * 12, rel=0.01)
    assert 8 * GB < need.total < 11 * GB  # a floor of 9 GB for pairs of 1,024
    assert need.total < needed(TUTORIAL, llama_8b(), 24 * GB, "cuda").total < 24 * GB, "Passes are larger where there is room."


@pytest.mark.parametrize(("changes", "smaller"), [
    ({"model__quantization": "nf4"}, "model"), ({"model__quantization": "int8"}, "model"), ({"adapter__rank": 1}, "adapter"),
    ({"adapter__target_modules": "q_proj, v_proj"}, "adapter"), ({"training__optimizer": "adamw_8bit"}, "optimizer"),
    ({"training__max_length": 128}, "activations"),
    ({"training__gradient_checkpointing": "full"}, "activations"),
])
def test_every_choice_that_saves_memory_saves_it(changes, smaller):
    settings = changed(TUTORIAL, model__quantization="none", training__gradient_checkpointing="none", training__optimizer="adamw_torch")
    before, after = (needed(one, llama_8b(), 10**12, "cuda").parts[smaller] for one in (settings, changed(settings, **changes)))
    assert after < before


def test_where_memory_is_short_passes_get_smaller_before_layers_are_recomputed():
    """With half as many tokens in a pass the activations halve; only what is still too large then is recomputed."""
    settings = changed(TUTORIAL, training__batch_size=8, training__gradient_checkpointing="auto")
    most, half, least = (needed(settings, llama_8b(), free * GB, "cuda").activations for free in (200, 70, 16))
    assert half == pytest.approx(most / 2) and least < half / 2


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_what_fits_fits_and_needs_no_advice():
    found = fit(TUTORIAL, llama_8b(), 24 * GB, "cuda")
    assert (found.verdict, found.advice) == ("fits", "")


@pytest.mark.parametrize(("changes", "free", "told"), [
    ({"training__gradient_checkpointing": "none"}, 13 * GB, "Gradient checkpointing"),
    ({"model__quantization": "none"}, 16 * GB, "Set Quantization to 4 bits"),
    ({"training__max_length": 16384, "training__batch_size": 1}, 16 * GB, "Lower the maximum length to"),
    ({}, 4 * GB, "Choose a smaller model"),
])
def test_what_is_too_large_is_told_the_mildest_change_that_helps(changes, free, told):
    found = fit(changed(TUTORIAL, **changes), llama_8b(), free, "cuda")
    assert found.verdict == "too large" and told in found.advice and found.advice.endswith(".")


def test_what_fits_with_little_room_is_tight_and_told_what_gives_room():
    settings = changed(TUTORIAL, model__offload_embeddings="off")
    need = needed(settings, llama_8b(), 24 * GB, "cuda", least=True).total
    found = fit(settings, llama_8b(), int(1.05 * need), "cuda")
    assert found.verdict == "tight" and "then it needs about" in found.advice


# --- the shape --------------------------------------------------------------------------------------------------------


def test_the_practice_models_shape_is_read_from_its_headers():
    shape = Shapes().find(ModelSettings())
    with safe_open(MODEL / "model.safetensors", "np") as file:
        numbers = sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    assert shape.parameters == numbers and shape.stored == 2 * numbers
    assert (shape.layers, shape.hidden, shape.queries, shape.intermediate, shape.vocabulary, shape.norms) == (3, 256, 256, 704, 2560, 2)
    assert {one.name: one.count for one in shape.linears} == dict.fromkeys(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 3)


def test_a_folder_that_holds_no_model_is_told_in_two_sentences(tmp_path):
    with pytest.raises(StudioError, match="cannot be read. Choose a folder"):
        Shapes().find(ModelSettings(name=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StudioError, match="holds no safetensors"):
        Shapes().find(ModelSettings(name=str(tmp_path)))


@pytest.mark.parametrize("config", ['{"hidden_size": "wide"}', '{"hidden_size": 0, "num_attention_heads": 0}', "[]", '"text"', "[" * 100_000,
                                    '{"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 0, "vocab_size": 9}',
                                    '{"hidden_size": [1], "num_attention_heads": {}}', '{"text_config": 5}', "{" + " " * 11_000_000 + "}"])
@pytest.mark.parametrize("header", [b"\xff" * 8, (1 << 40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]", b"",
                                    (30).to_bytes(8, "little") + b'{"x": {"shape": 5, "dtype": 1}}'])
def test_a_model_that_says_nonsense_of_itself_is_told_in_words_and_fills_no_memory(tmp_path, config, header):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(header)
    with pytest.raises(StudioError, match="Choose a"):
        Shapes().find(ModelSettings(name=str(tmp_path)))


def test_a_hub_model_is_known_only_once_it_was_looked_up():
    assert Shapes().known(ModelSettings(name="someone/tiny")) is None


def test_a_hub_models_shape_is_that_of_its_folder(hub):
    hub.add_model("someone/tiny", MODEL)
    assert _asked_of_the_hub("someone/tiny") == dataclasses.asdict(Shapes().find(ModelSettings()))["parameters"]


@pytest.mark.parametrize(("name", "told"), [("nobody/nothing", "nobody/nothing was not found"), ("meta/closed", "meta/closed is gated")])
def test_a_hub_model_that_cannot_be_read_is_told(hub, name, told):
    hub.add_model("meta/closed", MODEL, gated=True)
    assert told in _asked_of_the_hub(name)


def _asked_of_the_hub(name: str):
    """In a process of its own: the Hub's client reads its address when it is imported."""
    program = ("import json, sys\nfrom studio.errors import StudioError\nfrom studio.settings import ModelSettings\nfrom studio.shape import Shapes\n"
               "try: print(json.dumps(Shapes().find(ModelSettings(name=sys.argv[1])).parameters))\n"
               "except StudioError as error: print(json.dumps(str(error)))")
    done = subprocess.run([sys.executable, "-c", program, name], cwd=jobs.PROJECT, env=os.environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- time and money ---------------------------------------------------------------------------------------------------


def test_steps_and_pairs_are_counted_as_the_trainer_does():
    settings = practice(**{"training.max_steps": None, "training.epochs": 1.5, "training.batch_size": 8})
    assert (plan.steps_for(settings.training, 1800), plan.pairs_seen(settings.training, 1800)) == (338, 2700)
    assert plan.pairs_seen(practice(**{"training.max_steps": 4, "training.batch_size": 8}).training, 1800) == 32


def test_the_size_of_a_file_is_known_and_that_of_a_hub_dataset_as_far_as_the_form_says(tmp_path):
    lines = len(PAIRS.read_text(encoding="utf-8").splitlines())
    assert pace.size_of(tmp_path, practice(**{"data.rows": None, "data.held_out": 0})).pairs == lines
    assert pace.size_of(tmp_path, practice(**{"data.source": "a/b", "data.rows": 1000, "data.held_out": 0.1})) == pace.Size(900, held_out=100)
    assert pace.size_of(tmp_path, practice(**{"data.source": "a/b", "data.rows": None})).pairs is None


def test_the_tutorial_fits_an_l4_and_takes_an_hour_or_two_and_a_dollar_or_two():
    offers = {offer.hardware.name: offer for offer in pace.offers(TUTORIAL, llama_8b(), pace.Size(990, 800, 10))}
    found = offers["L4"].forecast
    assert 0.2 < found.usual / 3600 < 2 and found.low < 3600 < found.high and 0.2 < offers["L4"].dollars[1] < 2
    assert "CPU basic" not in offers


def test_a_larger_run_is_offered_only_what_it_fits():
    settings = changed(TUTORIAL, model__quantization="none", training__max_length=4096)
    assert not {"T4 small", "L4"} & {offer.hardware.name for offer in pace.offers(settings, llama_8b(), pace.Size(1000, 800))}


@pytest.mark.parametrize(("name", "speed"), [("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("Tesla T4", 65), ("NVIDIA A10G", 70),
                                             ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H200", 989), ("Quadro K600", None)])
def test_a_card_is_known_by_its_name(name, speed):
    assert hardware.published(name) == speed


# --- against real runs ------------------------------------------------------------------------------------------------


def tried(root, settings: Settings) -> events.Tried:
    """The outcome of two steps in a process of their own."""
    two_steps.begin(Queue(root), root, settings)
    until(lambda: not two_steps.trial(root).at_work)
    found = two_steps.trial(root)
    assert found.status == "finished", (jobs.trial_of(root).folder / "worker.log").read_text(encoding="utf-8")
    return found.outcome


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_the_peak_of_a_larger_model_is_estimated(tmp_path, checkpointing):
    model = saved(tiny_model("llama", **LARGER).bfloat16(), tmp_path / "larger")
    settings = practice(**{"model.name": str(model), "data.rows": None, "training.batch_size": 8, "training.gradient_checkpointing": checkpointing})
    measured = tried(tmp_path / "runs", settings)
    estimate = fit(settings, Shapes().find(settings.model), 16 * GB, "cpu", measured.longest).need.total
    print(f"larger model, checkpointing {checkpointing}: estimated {estimate / 1e6:.0f} MB, measured {measured.memory / 1e6:.0f} MB")
    assert estimate == pytest.approx(measured.memory, rel=0.15)


# --- two steps --------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T18b")
def test_two_steps_are_measured_shown_and_leave_no_run(tmp_path):
    settings, studio = practice(**{"training.epochs": 3, "training.max_steps": None}), Studio(tmp_path, Queue(tmp_path))
    outcome = tried(tmp_path, settings)
    assert outcome.pairs == 32 and outcome.step_tokens <= 4 * outcome.longest and outcome.all_tokens > outcome.step_tokens
    assert outcome.seconds > 0 and outcome.memory > 2e8
    assert outcome.step_tokens * outcome.pairs / 4 > 1.2 * outcome.all_tokens, "The longest pairs are tried, not any."
    assert runs.listed(tmp_path) == [] and not list(tmp_path.rglob("adapter*"))
    steps = plan.steps_for(settings.training, outcome.pairs)
    shape, found = studio.shapes.known(settings.model), gpu.place(settings)
    forecast = pace.forecast(settings, shape, found, pace.size_of(tmp_path, settings), outcome)
    assert forecast.how == "a trial" and 0 < forecast.low - 5 < forecast.high < 40 + 3 * steps * outcome.seconds

    def card(one: Settings) -> str:
        return shown(studio, one.to_form())

    assert "Measured on the longest pairs" in card(settings)
    assert "Measured on the longest pairs" in card(changed(settings, training__beta=0.7, training__epochs=9.0))
    assert "Needs up to" in card(changed(settings, training__batch_size=2))


@pytest.mark.slow
def test_two_steps_are_refused_while_a_training_waits_or_runs_and_a_training_waits_for_them(tmp_path):
    queue = Queue(tmp_path)
    two_steps.begin(queue, queue.home, practice())
    with pytest.raises(BusyError, match="two_steps|already works"):
        two_steps.begin(queue, queue.home, practice())
    run = runs.create(tmp_path, practice())
    assert queue.advance() is None
    until(lambda: not two_steps.trial(tmp_path).at_work)
    with pytest.raises(BusyError, match="A training is at work or waits"):
        two_steps.begin(queue, queue.home, practice())
    assert queue.advance() == run
    assert ended(run) == "finished"


def test_two_steps_are_stopped_before_they_are_taken_and_the_card_says_so(tmp_path):
    settings, studio = practice(), Studio(tmp_path, Queue(tmp_path))
    two_steps.begin(studio.queue, studio.root, settings)
    two_steps.stop(studio.root)
    if two_steps.trial(studio.root).at_work:
        assert "Stopping the two steps" in shown(studio, settings.to_form())
    until(lambda: not two_steps.trial(studio.root).at_work)
    trial = two_steps.trial(studio.root)
    assert trial.status == "stopped" and trial.outcome is None
    told = shown(studio, settings.to_form())
    assert "were stopped before they had measured anything" in told and "Needs up to" in told
    two_steps.stop(studio.root)
    assert two_steps.trial(studio.root).status == "stopped"


def test_two_steps_that_cannot_be_taken_are_told_on_the_card(tmp_path):
    settings, studio = practice(**{"data.source": str(tmp_path / "gone.jsonl")}), Studio(tmp_path / "runs", Queue(tmp_path / "runs"))
    two_steps.begin(studio.queue, studio.root, settings)
    until(lambda: not two_steps.trial(studio.root).at_work)
    assert "There is no file" in shown(studio, settings.to_form())


# --- the card ---------------------------------------------------------------------------------------------------------


def card(tmp_path, **changes) -> str:
    return shown(Studio(tmp_path, Queue(tmp_path)), practice(**changes).to_form())


def test_the_card_says_verdict_parts_time_and_money(tmp_path):
    told = card(tmp_path)
    assert ">fits</span>" in told and "activations" in told and "Time: about" in told and "CPU basic" in told and "free" in told


@pytest.mark.skipif(bool(gpu.cards()), reason="this machine has a GPU")
def test_the_card_of_a_run_for_a_gpu_shows_what_a_space_costs(tmp_path, monkeypatch):
    monkeypatch.setattr("studio.shape.Shapes.known", lambda self, model: llama_8b())
    told = card(tmp_path, **TUTORIAL.to_form())
    assert "no GPU here" in told and "L4" in told and "for the whole run" in told


def test_the_card_says_why_there_is_no_estimate(tmp_path):
    assert "has not been looked up yet" in card(tmp_path, **{"model.name": "someone/unknown"})
    assert "at least 1" in shown(Studio(tmp_path, Queue(tmp_path)), practice().to_form() | {"training.batch_size": 0})
