"""Embedding matrix and head that are offloaded to RAM: the same numbers to the last bit, and none of both on the device as a whole."""

import math
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import LlamaConfig, LlamaForCausalLM

from studio import events, fit, jobs, passes, runs
from studio.candidates import BASE
from studio.chat import Sampling
from studio.engine import keeper, model
from studio.engine.duet import Duet
from studio.engine.orpo import head as heads
from studio.engine.orpo import memory, offload, packing, trainer
from studio.engine.orpo.scoring import Scorer
from studio.engine.vocabulary import load_tokenizer
from studio.errors import SettingsError, StudioError
from studio.fit import changed, needed
from studio.jobs import PROJECT
from studio.presets import all_presets
from studio.settings import Settings
from studio.ui.fit_card import _in_ram
from tests.card.models import SHAPES, VOCABULARY
from tests.families import gradients, pairs, with_adapter
from tests.jobs_at_work import heard, practice
from tests.model_shapes import shape_of
from tests.test_fit import GB, TUTORIAL, llama_8b
from tests.test_orpo_parity import ours, settings_on
from tests.test_resuming import adapter, curve
from tests.tiny_models import saved, tiny_model
from tests.tiny_run import SENTENCES, tiny_base, tuned_run

ON = {"model.offload_embeddings": "on"}


@pytest.fixture
def beside_a_card(monkeypatch):
    """The CPU taken for a card that RAM is beside of: what is offloaded is copied tile by tile, into the same memory."""
    monkeypatch.setattr(offload, "is_possible", lambda causal: True)


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles, the last one smaller."""
    monkeypatch.setattr(heads, "TILE_ROWS", {"cpu": 64})
    monkeypatch.setattr(heads, "TILE_BYTES", {"cpu": 4 * 64 * 6 * heads.STRIDE})
    monkeypatch.setattr(offload, "TILE_WORDS", 384)


# --- the same numbers -------------------------------------------------------------------------------------------------


def figures(tuned, offloaded: bool, precision=torch.float32):
    """Scores of all pairs, how the model takes them, and the gradients of all its adapters."""
    for name, weight in tuned.named_parameters():
        weight.data = weight.data if "lora_" in name else weight.data.to(precision)
    if offloaded:
        offload.to_ram(tuned.get_base_model())
    scorer = Scorer(tuned, filler=0).choose(pairs())
    batch = scorer.batch(packing.weigh(pairs(), 2))
    with scorer.attending():
        scores, _ = scorer.score(batch)
        return scores, gradients(tuned, scores.loss(0.1, batch.shares)), scorer


def equal(one, other) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(
        (*vars(one[0]).values(), one[1]), (*vars(other[0]).values(), other[1]), strict=True))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "options"), [
    ("llama", {"tie_word_embeddings": False}), ("llama", {"tie_word_embeddings": True}),
    ("gemma2", {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 16}), ("gemma3_text", {"query_pre_attn_scalar": 16}),
    ("cohere", {"logit_scale": 3.0}), ("granite", {"logits_scaling": 0.3, "embedding_multiplier": 2.0}),
    ("phi", {"partial_rotary_factor": 0.5}), ("gpt2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512}), ("gpt_neox", {})])
def test_an_offloaded_model_scores_and_learns_to_the_last_bit_as_one_on_the_device(family, options, precision, small_tiles):
    resident, offloaded = (figures(with_adapter(family, **options), moved, precision) for moved in (False, True))
    assert offloaded[2].head.frozen is not None and isinstance(offloaded[2].head.frozen.weight, offload.InRam)
    assert offloaded[2].packed == resident[2].packed and offloaded[1].norm() > 0
    assert equal(resident, offloaded)


def test_an_offloaded_matrix_that_is_tied_is_one_in_ram_and_no_parameter_and_stays_where_it_is():
    for tied in (True, False):
        tuned = with_adapter("llama", tie_word_embeddings=tied)
        causal = tuned.get_base_model()
        size = causal.get_input_embeddings().weight.nbytes
        before, digest = [name for name, _ in tuned.named_parameters()], keeper.fingerprint(tuned)
        assert offload.bytes_in_ram(causal) == 0 and offload.in_words(causal) == ""
        offload.to_ram(causal)
        assert offload.bytes_in_ram(causal) == (size if tied else 2 * size)
        assert [name for name, _ in offload.named_weights(tuned)] == before
        assert keeper.fingerprint(tuned) == digest, "A run may go on with its matrices elsewhere."
        assert not any("embed" in name or "lm_head" in name for name, _ in tuned.named_parameters())
        tuned.to("meta")
        assert causal.device.type == "meta" and causal.get_output_embeddings().weight.device.type == "cpu"


def test_an_offloaded_head_of_unknown_ways_gets_its_gradient_through_the_model_s_own_code(monkeypatch, small_tiles):
    real = LlamaForCausalLM.forward

    def squared(self, *inputs, **options):
        output = real(self, *inputs, **options)
        output.logits = output.logits ** 2
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", squared)
    resident, offloaded = (figures(with_adapter("llama"), moved) for moved in (False, True))
    assert offloaded[2].head.frozen is None
    assert (resident[1] - offloaded[1]).norm() <= 1e-5 * resident[1].norm()
    assert torch.allclose(resident[0].chosen, offloaded[0].chosen, atol=1e-5)


def test_an_offloaded_model_writes_the_same_answers(small_tiles):
    prompt, written, logits = torch.arange(5, 25)[None], [], []
    for moved in (False, True):
        tuned = with_adapter("gemma3_text", query_pre_attn_scalar=16)
        if moved:
            offload.to_ram(tuned.get_base_model())
        with torch.no_grad():
            logits.append(tuned(input_ids=prompt).logits)
            written.append(tuned.generate(input_ids=prompt, max_new_tokens=20, do_sample=False, eos_token_id=None))
    assert torch.equal(*written) and torch.allclose(*logits, atol=1e-5)


# --- whole runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    options = {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.02, "tie_word_embeddings": False}
    return saved(tiny_model("llama", **options), tmp_path_factory.mktemp("untied"))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_an_offloaded_run_takes_the_same_steps_to_the_last_bit(untied, tmp_path, beside_a_card, quantization):
    settings = settings_on(untied, **{"model.quantization": quantization, "adapter.dropout": 0.1})
    resident, offloaded = (ours(changed(settings, model__offload_embeddings=wanted), tmp_path) for wanted in ("off", "on"))
    assert offload.bytes_in_ram(offloaded.trainer.scorer.causal) and not offload.bytes_in_ram(resident.trainer.scorer.causal)
    assert "The embedding matrix and the head (3 MB) stay in RAM" in offloaded.trainer.in_words()
    assert all(torch.equal(one, other) for one, other in zip(resident.gradients, offloaded.gradients, strict=True))
    assert [log["loss"] for log in resident.logs] == [log["loss"] for log in offloaded.logs] and len(resident.logs) == 6
    mine, theirs = (dict(watch.trainer.model.named_parameters()) for watch in (offloaded, resident))
    assert all(torch.equal(mine[name], weight) for name, weight in theirs.items() if "lora_" in name)


WORKER = """
import sys
from studio.engine.orpo import offload
from studio.engine.train import train
from studio.engine.worker import work
offload.is_possible = lambda causal: True
sys.exit(work(train, lambda desk: "cpu"))
"""


def worked(run: runs.Run) -> runs.Run:
    """The run, after a worker has trained it with the CPU taken for a card."""
    subprocess.run([sys.executable, "-c", WORKER, str(run.folder)], cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=200)
    assert jobs.status(jobs.of(run)) == "finished", heard(run, events.Failed)
    return run


def test_an_offloaded_run_goes_on_exactly_from_the_checkpoint_of_one_that_was_not(untied, tmp_path):
    """Samples and held-out measurements are taken meanwhile, and are the same as well."""
    choices = {"model.name": str(untied), "data.rows": 60, "training.max_steps": 4, "training.checkpoint_every": 2, "training.keep_checkpoints": 2,
               "adapter.dropout": 0.1, "evaluation.every": 2, "training.learning_rate": 1e-3, "training.warmup_steps": 0}
    whole = worked(runs.create(tmp_path, practice(**choices, **ON)))
    assert any("stay in RAM" in noted.text for noted in heard(whole, events.Noted))
    assert [one.step for one in heard(whole, events.Checkpointed)] == [2]
    resident = worked(runs.create(tmp_path, practice(**choices, **{"model.offload_embeddings": "off"})))
    shutil.copytree(resident.folder, tmp_path / "resumed-0101-0000-aaaa")
    resumed = runs.find(tmp_path, "resumed-0101-0000-aaaa")
    (resumed.folder / "settings.yaml").write_text(practice(**choices, **ON).to_yaml(), encoding="utf-8")
    assert [event.step for event in heard(worked(resumed), events.Resumed)] == [2]
    mine = adapter(whole)
    assert any(weight.abs().sum() > 0 for name, weight in mine.items() if "lora_B" in name)
    for run in (resident, resumed):
        assert curve(run) == curve(whole)
        assert all(torch.equal(weight, mine[name]) for name, weight in adapter(run).items())
    said = [[(one.step, one.base, one.tuned) for one in heard(run, events.Sampled)] for run in (whole, resident)]
    assert said[0] == said[1] and said[0]
    measured = [[(one.step, one.metrics) for one in heard(run, events.Evaluated)] for run in (whole, resident)]
    assert measured[0] == measured[1] and measured[0]


def test_an_offloaded_chat_says_what_one_on_the_device_says(tmp_path, beside_a_card):
    run = tuned_run(tmp_path, tiny_base(tmp_path / "base"), **ON)
    answers = []
    for folder in (run, runs.create(tmp_path, changed(run.settings, model__offload_embeddings="off"))):
        if folder is not run:
            shutil.copytree(run.adapter, folder.adapter)
        duet, told = Duet(folder), []
        assert bool(offload.bytes_in_ram(duet._base)) is (folder is run)
        talk = [{"role": "user", "content": SENTENCES[0]}]
        duet.answer([talk, talk], Sampling(temperature=0, max_new_tokens=12), told.append)
        answers.append(told[-1])
    assert answers[0] == answers[1] and duet.pair[0] == BASE


@pytest.mark.parametrize(("wanted", "free", "moved"), [("auto", 10**8, True), ("auto", 10**10, False), ("off", 10**8, False), ("on", 10**10, True)])
def test_a_chat_is_offloaded_if_asked_for_or_if_the_card_is_nearly_full(tmp_path, beside_a_card, monkeypatch, wanted, free, moved):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    run = tuned_run(tmp_path, tiny_base(tmp_path / "base"), **{"model.offload_embeddings": wanted})
    assert bool(offload.bytes_in_ram(Duet(run)._base)) is moved


def test_an_offloaded_chat_refuses_an_adapter_on_the_head(tmp_path, beside_a_card):
    base = tiny_base(tmp_path / "base")
    duet = Duet(tuned_run(tmp_path, base, **ON))
    other = tuned_run(tmp_path, base, **{"adapter.target_modules": "q_proj, lm_head"})
    with pytest.raises(StudioError, match="has an adapter on lm_head, and this chat keeps that matrix in RAM"):
        duet.seat((BASE, type(duet.pair[1])(other.name)))
    assert not offload.bytes_in_ram(Duet(other)._base)


# --- when ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_offloaded_by_itself_only_where_memory_is_short(untied, tmp_path, beside_a_card, monkeypatch):
    settings = settings_on(untied, **{"model.offload_embeddings": "auto"})
    plenty = ours(settings, tmp_path)
    assert not offload.bytes_in_ram(plenty.trainer.scorer.causal)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setitem(passes.ENOUGH, "cpu", 1)
    scarce = ours(settings, tmp_path)
    assert offload.bytes_in_ram(scarce.trainer.scorer.causal)
    assert not offload.bytes_in_ram(ours(changed(settings, model__offload_embeddings="off"), tmp_path).trainer.scorer.causal)
    assert [log["loss"] for log in scarce.logs] == pytest.approx([log["loss"] for log in plenty.logs], abs=2e-6)


@pytest.mark.parametrize("wanted", ["auto", "off"])
def test_a_step_for_which_memory_runs_out_is_offloaded_at_last(untied, tmp_path, beside_a_card, monkeypatch, wanted):
    real = Scorer.score

    def score(self, batch):
        scores = real(self, batch)
        if torch.is_grad_enabled() and not offload.bytes_in_ram(self.causal):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return scores

    settings = settings_on(untied, **{"model.offload_embeddings": wanted, "training.gradient_checkpointing": "full"})
    enough = ours(settings, tmp_path)
    monkeypatch.setattr(Scorer, "score", score)
    monkeypatch.setattr(memory, "measure", lambda scorer, pair: passes.Kept(1.0, 1, 4))
    if wanted == "off":
        with pytest.raises(trainer.TooLargeError):
            ours(settings, tmp_path)
        return
    scarce = ours(settings, tmp_path)
    assert offload.bytes_in_ram(scarce.trainer.scorer.causal)
    assert [log["loss"] for log in scarce.logs] == pytest.approx([log["loss"] for log in enough.logs], abs=2e-6)


@pytest.mark.parametrize(("options", "told"), [({"target_modules": ["q_proj", "lm_head"]}, "an adapter is trained on them"),
                                               ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "an adapter is trained"),
                                               ({"target_modules": ["q_proj", "embed_tokens"]}, "an adapter is trained on them")])
def test_a_matrix_that_learns_is_not_offloaded(options, told, beside_a_card):
    tuned = get_peft_model(tiny_model("llama"), LoraConfig(r=4, task_type="CAUSAL_LM", **options))
    assert not Scorer(tuned, filler=0).offload() and told in offload.why_not(tuned.get_base_model())
    with pytest.raises(StudioError, match="Set Offload embeddings to off"):
        offload.to_ram(tuned.get_base_model())


def test_nothing_is_offloaded_on_a_cpu(untied, tmp_path):
    watch = ours(settings_on(untied, **ON, **{"training.max_steps": 6}), tmp_path)
    assert not offload.bytes_in_ram(watch.trainer.scorer.causal) and "RAM" not in watch.trainer.in_words()


@pytest.mark.parametrize(("written", "means"), [("on", "on"), ("off", "off"), ("auto", "auto"), ("'on'", "on")])
def test_the_offloaded_setting_may_be_written_as_yaml_s_switch(written, means):
    settings = Settings.from_yaml(f"model: {{offload_embeddings: {written}}}")
    assert settings.model.offload_embeddings == means and Settings.from_yaml(settings.to_yaml()) == settings


@pytest.mark.parametrize("targets", ["lm_head", "q_proj, model.embed_tokens"])
def test_an_offloaded_head_with_an_adapter_on_it_is_refused_by_the_form(targets):
    with pytest.raises(SettingsError) as refused:
        Settings.from_form(**ON, **{"adapter.target_modules": targets})
    assert "needs the matrix on the GPU" in refused.value.problems["model.offload_embeddings"]
    Settings.from_form(**{"adapter.target_modules": targets})


# --- pretended devices --------------------------------------------------------------------------------------------------


class Made(TorchDispatchMode):
    """The numbers of every tensor that an operator gives or is given on the pretended device."""

    def __init__(self):
        super().__init__()
        self.sizes = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        self.sizes.update(tensor.numel() for tensor in tree_flatten((made, args, kwargs))[0]
                          if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta")
        return made


def pretended(shape: str, tied: bool):
    """A Llama of two layers on a pretended device, with its embedding matrix and head in RAM that is pretended as well."""
    with torch.device("meta"):
        causal = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **SHAPES[shape] | {"num_hidden_layers": 2, "tie_word_embeddings": tied}))
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    embedding.weight = nn.Parameter(torch.empty(embedding.weight.shape), requires_grad=False)
    head.weight = embedding.weight if tied else nn.Parameter(torch.empty_like(embedding.weight), requires_grad=False)
    causal.requires_grad_(False)
    offload.to_ram(causal)
    with torch.device("meta"):
        return get_peft_model(causal, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).train()


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_no_offloaded_matrix_is_ever_whole_on_a_pretended_card(monkeypatch, tied):
    """8B's embedding and head have 525 million numbers each; the pass makes no tensor with a sixth of that."""
    for table in (heads.TILE_ROWS, heads.TILE_BYTES):
        monkeypatch.setitem(table, "meta", table["cuda"])
    monkeypatch.setattr(torch, "autocast", lambda *kind, **options: nullcontext())  # which knows no such device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)
    monkeypatch.setattr(heads.Head, "_frozen", lambda self: heads.Frozen(  # a proof that needs numbers
        offload.in_ram(self.causal.get_output_embeddings()), None, 1.0, None))
    with FakeTensorMode(allow_non_fake_inputs=True):
        tuned = pretended("8b", tied)
        scorer = Scorer(tuned, filler=0)
        scorer.packed = True
        batch = scorer.batch(packing.weigh(pairs(), 2))
        made = Made()
        with scorer.attending(), made:
            scores, _ = scorer.score(batch)
            scores.loss(0.1, batch.shares).backward()
        whole = VOCABULARY * SHAPES["8b"]["hidden_size"]
        assert batch.ids.device.type == "meta" and all(weight.grad is not None for weight in tuned.parameters() if weight.requires_grad)
        tile = heads._even_parts(VOCABULARY, 8192, heads.STRIDE)[0].stop
        assert made.sizes[tile * 4096] > 10, "The tiles were there."
        assert max(made.sizes) < whole / 6
        made = Made()
        with torch.no_grad(), made:
            tuned(input_ids=batch.ids, logits_to_keep=1)
        assert made.sizes[offload.TILE_WORDS * 4096] > 10, "Generation asks for the last token's logits."
        assert max(made.sizes) < whole / 6


class Stream:
    """A card's stream that does what it is asked for only when it is let, and then in its order."""

    def __init__(self):
        self.queue = []

    def wait_event(self, event):
        self.queue.append(("wait", event.of, event.mark))

    def wait_stream(self, other):
        event = Event()
        event.record(other)
        self.wait_event(event)

    def run(self, until=None):
        while self.queue:
            what, *rest = self.queue.pop(0)
            if what == "wait" and rest[1] in [entry[1] for entry in rest[0].queue if entry[0] == "mark"]:
                rest[0].run(rest[1])
            elif what == "do":
                rest[0]()
            elif what == "mark" and rest[0] is until:
                return


class Event:
    of, mark = None, None

    def record(self, stream):
        self.of, self.mark = stream, object()
        stream.queue.append(("mark", self.mark))


class Streams:
    """In the place of torch.cuda: a stream that computes, one that copies, and which of them is the current one."""

    Event = Event

    def __init__(self):
        self.computing, self.copying = Stream(), Stream()
        self.current = self.computing

    def current_stream(self, device):
        return self.computing

    def stream(self, stream):
        self.current = stream
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.current = self.computing


class Queued(TorchFunctionMode):
    """Copies wait in the current stream."""

    def __init__(self, streams):
        super().__init__()
        self.streams = streams

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.copy_:
            assert kwargs == {"non_blocking": True} and self.streams.current is self.streams.copying
            self.streams.current.queue.append(("do", lambda: args[0].copy_(args[1])))
            return args[0]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("first", ["computing", "copying"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_offloaded_tiles_are_right_however_far_a_pretended_card_s_copies_run_ahead_or_fall_behind(monkeypatch, first, count):
    streams, weight, seen = Streams(), torch.arange(count * 10 - 3).float()[:, None].expand(-1, 4).contiguous(), []
    monkeypatch.setattr(offload, "cuda", streams)
    monkeypatch.setattr(offload, "_copy_stream", lambda device: streams.copying)
    parts = [slice(start, min(start + 10, len(weight))) for start in range(0, len(weight), 10)]
    with Queued(streams):
        for part, tile in offload._copied_ahead(weight, parts, torch.device("cpu")):
            streams.computing.queue.append(("do", lambda tile=tile: seen.append(tile.clone())))
            assert tile.shape == weight[part].shape
    getattr(streams, first).run()
    streams.computing.run()
    streams.copying.run()
    assert torch.equal(torch.cat(seen), weight) and len(seen) == count


def test_offloaded_tiles_that_are_not_all_taken_leave_no_copy_that_the_card_does_not_wait_for(monkeypatch):
    streams = Streams()
    monkeypatch.setattr(offload, "cuda", streams)
    monkeypatch.setattr(offload, "_copy_stream", lambda device: streams.copying)
    with Queued(streams):
        tiles = offload._copied_ahead(torch.ones(40, 4), [slice(start, start + 10) for start in range(0, 40, 10)], torch.device("cpu"))
        next(tiles)
        tiles.close()
    streams.computing.run()
    assert not any(what == "do" for what, *_ in streams.copying.queue)


# --- the estimate ---------------------------------------------------------------------------------------------------------


def test_the_estimate_s_offloaded_tiles_are_the_trainer_s():
    assert fit.TILE_WORDS == offload.TILE_WORDS == heads.TILE_BYTES["cuda"] // 4 // heads.TILE_ROWS["cuda"]


def test_8b_in_4_bits_fits_8_gb_offloaded_and_not_otherwise():
    settings = changed(TUTORIAL, training__max_length=1024, training__gradient_checkpointing="auto")
    free = int(7.5 * GB)
    resident, auto = (fit.fit(changed(settings, model__offload_embeddings=wanted), llama_8b(), free, "cuda") for wanted in ("off", "auto"))
    assert resident.verdict == "too large" and resident.advice.startswith("Set Offload embeddings to auto: then it needs about 6.")
    assert auto.verdict == "fits" and auto.advice == "" and resident.offloaded == 0
    assert auto.offloaded == pytest.approx(2 * 2 * 128256 * 4096) and "2.1 GB" in _in_ram(auto)
    parts = [needed(changed(settings, model__offload_embeddings=wanted), llama_8b(), free, "cuda", least=True) for wanted in ("off", "on")]
    assert parts[0].model - parts[1].model == auto.offloaded and parts[1].head > parts[0].head


def test_an_estimate_is_offloaded_only_on_a_card_that_is_too_small_and_without_an_adapter_on_it():
    def moved(kind="cuda", free=8, **changes):
        return fit.offloads(changed(TUTORIAL, **changes), llama_8b(), free * GB, kind)

    assert moved() and not moved(free=24) and not moved(kind="cpu") and not moved(model__offload_embeddings="off")
    assert moved(free=24, model__offload_embeddings="on") and not moved(adapter__target_modules="q_proj, lm_head")


def test_what_does_not_fit_even_offloaded_is_told_to_choose_a_smaller_model():
    assert "Choose a smaller model" in fit.fit(TUTORIAL, llama_8b(), 4 * GB, "cuda").advice


def test_the_card_warns_of_offloaded_matrices_that_ram_has_no_room_for(monkeypatch):
    found = fit.fit(TUTORIAL, llama_8b(), 8 * GB, "cuda")
    monkeypatch.setattr("studio.gpu.free_ram", lambda: GB)
    assert "of which 1.0 GB are free" in _in_ram(found)


@pytest.mark.parametrize("kind", ["cuda", "cuda before Ampere"])
def test_the_preset_with_offloaded_embeddings_fits_an_8_gb_card_of_which_half_a_gb_is_taken(kind):
    settings, shape, free = all_presets()["gpu-8gb-7b"].settings, shape_of("Qwen/Qwen2.5-7B-Instruct"), int(7.5 * GB)
    assert fit.fit(settings, shape, free, kind).verdict == "fits"
    resident = fit.fit(changed(settings, model__offload_embeddings="off"), shape, free, kind)
    assert resident.verdict == "too large" and "Offload embeddings" in resident.advice
    assert math.isclose(shape.embeddings, 2 * 152064 * 3584)


def test_a_grown_vocabulary_is_offloaded_with_its_new_rows(tmp_path):
    settings = practice(**{"model.name": str(tiny_base(tmp_path / "base", chatml=False)), "model.template": "chatml"}).model
    tokenizer = load_tokenizer(settings)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    base = model.load_base(settings, tokenizer).requires_grad_(False)
    ids = torch.tensor([[len(tokenizer) - 1, 3]])
    with torch.no_grad():
        before = base(input_ids=ids).logits
        offload.to_ram(base)
        after = base(input_ids=ids).logits
    assert before.shape == after.shape == (1, 2, len(tokenizer)) and torch.allclose(before, after, atol=1e-4)
