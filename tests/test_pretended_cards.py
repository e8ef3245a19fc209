"""What is right on a card and cannot be seen without one: pretended drivers, torch's fake tensors, texts that CUDA says."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainingArguments

from studio import events, gpu, passes, runs
from studio.engine import precision
from studio.engine.orpo import arguments, arithmetic, attention, memory, packing, relief, trainer
from studio.engine.orpo.scoring import Scorer
from studio.errors import StudioError
from studio.fit import kept_by_a_layer
from studio.installed import TorchBuild
from studio.jobs import PROJECT
from studio.settings import ModelSettings, Settings
from studio.shape import Linear, Shape
from tests import families
from tests.card.models import SHAPES, VOCABULARY
from tests.jobs_at_work import heard, practice

OLD, NEW, DRIVER = "An old card", "A new card", "550.54.14"
CUDA_13 = TorchBuild("2.13.0", "13.0")


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A driver that lists these cards: name, total and used in MiB."""
    def lists(*found: tuple[str, int, int], driver: str = DRIVER, told: str = ", 8.6") -> None:
        rows = "\\n".join(f"GPU-{place}a, {name}, {total}, {used}, {driver}{told}" for place, (name, total, used) in enumerate(found))
        refuses = "" if told else '*compute_cap*) echo "Field compute_cap is not a valid field to query."; exit 2;; '
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncase \"$1\" in {refuses}--query-gpu=*) printf '{rows}\\n';; esac\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        precision._cards.cache_clear()

    for name in (gpu.VISIBLE, gpu.ORDER):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    yield lists
    precision._cards.cache_clear()


# --- one card of several ----------------------------------------------------------------------------------------------


def test_of_two_pretended_cards_a_worker_sees_the_one_with_the_most_free_memory(pretended, monkeypatch):
    pretended((NEW, 24000, 20000), (NEW, 24000, 1000))
    gpu.take_one()
    assert os.environ[gpu.VISIBLE] == "GPU-1a"
    assert gpu.the_one(gpu.cards()).uuid == "GPU-1a" and len(gpu.cards()) == 1
    assert gpu.place(Settings()).free == 23000 * 2**20


@pytest.mark.parametrize(("shown", "order", "seen", "taken"), [
    ("1,0", "", ["GPU-1a", "GPU-0a"], "1,0"),  # to CUDA these numbers may be other cards, so that nothing is changed
    ("1,0", "PCI_BUS_ID", ["GPU-1a", "GPU-0a"], "GPU-1a"), ("0", "", ["GPU-0a"], "0"), ("", "", [], ""), ("7,0", "", [], "7,0"),
    ("GPU-1", "", ["GPU-1a"], "GPU-1"), ("GPU-0a,GPU-1a", "", ["GPU-0a", "GPU-1a"], "GPU-1a"), ("-1", "", [], "-1"),
    ("MIG-6f1", "", ["GPU-0a", "GPU-1a"], "MIG-6f1")])
def test_pretended_cards_that_a_person_hides_are_neither_seen_nor_taken(pretended, monkeypatch, shown, order, seen, taken):
    monkeypatch.setenv(gpu.VISIBLE, shown)
    if order:
        monkeypatch.setenv(gpu.ORDER, order)
    pretended((OLD, 24000, 20000), (NEW, 24000, 1000))
    assert [card.uuid for card in gpu.cards()] == seen
    if not shown.startswith("MIG"):
        gpu.take_one()
        assert os.environ[gpu.VISIBLE] == taken


def test_with_two_pretended_cards_in_sight_a_step_holds_no_more_pairs(tmp_path, monkeypatch):
    def sees_two(arguments: TrainingArguments) -> torch.device:
        arguments._n_gpu = 2
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(sees_two))
    settings = Settings.from_form(**{"training.batch_size": 2, "training.accumulation": 4})
    assert arguments.arguments(settings, tmp_path).train_batch_size == 8


@pytest.mark.parametrize(("kind", "chosen", "used"), [("cuda", "adamw_torch", "adamw_torch_fused"), ("cpu", "adamw_torch", "adamw_torch"),
                                                      ("cuda", "paged_adamw_8bit", "paged_adamw_8bit")])
def test_on_a_pretended_card_all_weights_are_stepped_by_one_kernel(tmp_path, monkeypatch, kind, chosen, used):
    monkeypatch.setattr(arguments, "device", lambda settings: torch.device(kind))
    monkeypatch.setattr(arguments, "compute_dtype", lambda settings: torch.float32)
    assert arguments.arguments(Settings.from_form(**{"training.optimizer": chosen}), tmp_path).optim == used


def test_a_run_that_torchrun_starts_as_several_processes_is_refused_in_a_sentence(tmp_path):
    run = runs.create(tmp_path, practice())
    done = subprocess.run([sys.executable, "-m", "studio.engine.train", str(run.folder)], cwd=PROJECT, stdin=subprocess.DEVNULL,
                          env=os.environ | {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and not heard(run, events.Started)
    assert "started as 2 processes" in heard(run, events.Failed)[0].reason and "without torchrun" in heard(run, events.Failed)[0].reason


@pytest.mark.parametrize(("told", "kind"), [(", 7.5", "cuda before Ampere"), (", 8.6", "cuda"), (", [N/A]", "cuda"), ("", "cuda")])
def test_what_a_pretended_card_can_do_is_asked_also_of_a_driver_that_does_not_know_the_question(pretended, told, kind):
    pretended((OLD, 16000, 1000), told=told)
    assert gpu.place(Settings()).kind == kind


@pytest.mark.parametrize("shape", ["8b", *(pytest.param(name, marks=pytest.mark.slow) for name in ("1b", "3b"))])
def test_what_a_token_leaves_behind_on_a_pretended_card_is_what_autograd_keeps(shape):
    """The 8B shape keeps 94 kB a layer from Ampere on, and 117 kB on an older card."""
    program = "import json, sys; from tests.card import trace; print(json.dumps([trace.kept(sys.argv[1], (major, 0)) for major in (9, 7)]))"
    done = subprocess.run([sys.executable, "-c", program, shape], cwd=PROJECT, capture_output=True, text=True, check=True)
    measured = dict(zip(("cuda", "cuda before Ampere"), json.loads(done.stdout.splitlines()[-1]), strict=True))
    sizes = trace_shape(shape)
    for kind, kept in measured.items():
        assert kept_by_a_layer(Settings.from_form(**{"adapter.rank": 16, "adapter.dropout": 0.0}), sizes, kind) == pytest.approx(kept, rel=0.15), kind


def trace_shape(name: str) -> Shape:
    config = SHAPES[name]
    hidden, inner, layers, heads = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"))
    keys = hidden // heads * config["num_key_value_heads"]
    linears = tuple(Linear(f"{part}_proj", *sizes, layers) for part, sizes in {
        "q": (hidden, hidden), "k": (hidden, keys), "v": (hidden, keys), "o": (hidden, hidden),
        "gate": (hidden, inner), "up": (hidden, inner), "down": (inner, hidden)}.items())
    return Shape(parameters=0, embeddings=0, stored=0, layers=layers, hidden=hidden, heads=heads, queries=hidden, keys=keys, intermediate=inner,
                 vocabulary=VOCABULARY, linears=linears, norms=2, norms_first=True, norms_heads=False, blockwise=False)


# --- a card that torch cannot use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "driver", "told"), [
    (CUDA_13, DRIVER, "torch 2.13.0 was built for CUDA 13.0, which needs a driver of version 580 or newer, and this machine's is 550.54.14"),
    (TorchBuild("2.13.0+cpu"), DRIVER, "torch 2.13.0+cpu was built without CUDA"), (CUDA_13, "580.65.06", ""),
    (TorchBuild("2.11.0+cu126", "12.6"), DRIVER, ""), (TorchBuild("2.11.0", "", "6.4"), DRIVER, "")])
def test_a_pretended_card_that_torch_cannot_use_is_told_with_both_versions(pretended, build, driver, told):
    pretended((NEW, 24000, 0), driver=driver)
    assert told in gpu.unused(gpu.cards(), build) and bool(told) == bool(gpu.unused(gpu.cards(), build))


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch uses this machine's card")
def test_no_large_model_is_trained_on_the_cpu_beside_a_pretended_card_without_a_word(pretended, monkeypatch, tmp_path):
    pretended((NEW, 24000, 0))
    for module in (gpu, precision):
        monkeypatch.setattr(module, "torch_build", lambda: CUDA_13)
    large = ModelSettings(name="meta-llama/Meta-Llama-3-8B", device="auto")
    for refused in (lambda: precision.device(large), lambda: gpu.refuse_what_cannot_start(Settings(model=large), tmp_path)):
        with pytest.raises(StudioError, match="needs a driver of version 580 or newer.*Update the driver"):
            refused()
    assert "needs a driver" in gpu.in_words(gpu.cards())
    assert precision.device(ModelSettings(device="auto")).type == "cpu", "The practice model is made for it."
    assert precision.device(large.model_copy(update={"device": "cpu"})).type == "cpu"
    monkeypatch.setattr(precision, "torch_build", lambda: TorchBuild("2.11.0", "12.6"))
    with pytest.raises(StudioError, match="does not find it"):
        precision.device(large)


# --- what a card says and wants -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
                                   "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                                   "CUDA driver error: out of memory", "Triton Error [CUDA]: out of memory", "HIP error: out of memory",
                                   "Triton Error [HIP]:  Code: 2, Messsage: out of memory"])
def test_memory_that_runs_out_in_a_pretended_card_s_libraries_is_relieved(words):
    kind = getattr(torch, "AcceleratorError", RuntimeError)
    try:
        error = kind(words)
    except TypeError:  # made by torch itself only
        error = RuntimeError(words)
    assert relief.ran_out(error)
    assert not relief.ran_out(RuntimeError("CUDA error: device-side assert triggered"))


class Called(TorchDispatchMode):
    """Which operators are called."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(str(operator))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(("hip", "narrow"), [(None, True), ("6.4.0", False)])
def test_on_a_pretended_card_of_rocm_no_product_is_asked_for_that_only_cuda_has(monkeypatch, hip, narrow):
    monkeypatch.setattr(torch.version, "hip", hip)
    with FakeTensorMode(), Called() as called:
        left, right = (torch.empty(8, 8, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        assert arithmetic.product(left, right).dtype is torch.float32
    assert any("mm.dtype" in name for name in called.names) is narrow


@pytest.mark.parametrize(("width", "capability", "takes"), [(64, (8, 0), True), (12, (8, 0), False), (264, (9, 0), False), (64, (7, 5), False)])
def test_a_pretended_card_is_asked_once_and_given_only_heads_that_its_kernel_takes(monkeypatch, width, capability, takes):
    asked = []
    attention._capability.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    with FakeTensorMode():
        query = torch.empty(1, 2, 4, width, device="cuda", dtype=torch.bfloat16)
        assert [attention._takes_varlen(query, query) for _ in range(3)] == [takes] * 3
    assert len(asked) <= 1
    attention._capability.cache_clear()


def test_the_look_at_the_memory_draws_nothing_from_any_pretended_card(monkeypatch):
    remembered, back = [torch.tensor([7])], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: remembered)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", back.append)
    memory.measure(Scorer(families.with_adapter("llama"), filler=0), families.pairs()[0])
    assert back == [remembered]


@pytest.mark.parametrize("full", [False, True], ids=["", "the typical pair does not fit"])
def test_what_a_token_keeps_is_measured_on_a_typical_pair_unless_a_pretended_card_is_too_small(monkeypatch, full):
    pairs = sorted(families.pairs(), key=packing.size)
    monkeypatch.setattr(trainer, "TYPICAL", packing.size(pairs[-1]))
    measured = []

    def measure(scorer, pair):
        measured.append(pair)
        if full and len(measured) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return passes.Kept(1.0, 1, 2, 0)

    monkeypatch.setattr(memory, "measure", measure)
    mine = object.__new__(trainer.ORPOTrainer)
    mine.scorer = None
    assert mine._kept_of(trainer.typical(pairs), pairs[0]) == passes.Kept(1.0, 1, 2, 0)
    assert measured == ([pairs[-1], pairs[0]] if full else [pairs[-1]])


def test_a_worker_lets_a_card_s_memory_grow_in_pieces_that_fit_together():
    asked = "import os; import studio.engine.worker; print(os.environ['PYTORCH_CUDA_ALLOC_CONF'])"
    done = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "expandable_segments:True"
