"""The benchmarks run: their gates hold on a small scale, and the GPU's script goes its whole way on the CPU."""

import json
import os
import re
import subprocess
import sys
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from studio.engine import data, tokens
from studio.engine.ggml import shape as gguf_shape
from studio.engine.ggml import vocabulary
from studio.engine.model import load_base
from studio.engine.orpo.scoring import Scorer
from studio.engine.orpo.trainer import ORPOTrainer
from studio.engine.vocabulary import load_tokenizer
from studio.jobs import PROJECT
from studio.settings import Settings
from tests.benchmarks import contenders, cpu
from tests.benchmarks.contenders import PACKED, PADDED, TRL
from tests.benchmarks.lengths import FULL, SETS, batches
from tests.card import attempts, endtoend
from tests.card.__main__ import STAGES
from tests.card.contenders import LIGER
from tests.card.findings import Say, verdicts
from tests.test_orpo_parity import ours, settings_on

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", SETS)
def test_all_contenders_compute_the_same(name):
    model = contenders.model_of(3_000, layers=2)
    batch = next(batches(name, 3_000, seed=1, scale=0.1))
    equal = cpu.gate(model, contenders.contenders(model, batch), batch)
    assert set(equal) == {PACKED, PADDED}


def test_a_contender_that_computes_something_else_is_not_timed():
    model = contenders.model_of(3_000, layers=2)
    batch = next(batches("fixed", 3_000, seed=1, scale=0.1))
    running = contenders.contenders(model, batch)
    honest = running[PACKED]
    running[PACKED] = lambda pairs: honest(pairs[:1])
    with pytest.raises(SystemExit, match="does not compute what TRL computes"):
        cpu.gate(model, running, batch)


def test_pairs_of_a_set_have_its_lengths_and_share_their_prompt_only():
    for pair in next(batches("long prompt", 50_000, seed=2)):
        assert (pair.prompt, len(pair.chosen), len(pair.rejected)) == (500, 620, 620)
        assert (pair.chosen[:500] == pair.rejected[:500]).all() and pair.chosen[500] != pair.rejected[500]
    lengths = [len(pair.chosen) for batch in islice(batches("log-normal", 50_000, seed=2), 20) for pair in batch]
    assert max(lengths) > 2 * min(lengths)


@pytest.mark.parametrize("stage", ["exact", "speed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("probe", "tune", "end-to-end"))])
def test_a_stage_of_the_card_s_check_goes_its_whole_way_on_the_cpu(tmp_path, stage):
    more = ["--sets", "log-normal", "--checkpointing", "none", "--timed", "1"] if stage == "speed" else []
    subprocess.run([sys.executable, "-m", "tests.card", stage, "--out", str(tmp_path), "--device", "cpu", "--tiny", *more], cwd=PROJECT, check=True,
                   env=os.environ | {"SLACK": "2"}, capture_output=True, timeout=290)
    found = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found and not [one for one in found if one.get("failed") or one.get("failed_who")]
    if stage == "exact":
        same = next(one for one in found if one["what"] == "float32 against TRL")
        assert all(same[who]["loss"] < 2e-6 and same[who]["gradient"] < 5e-6 for who in (PACKED, PADDED, "packed, recomputed"))
    if stage == "end-to-end":
        known = {one["what"].removeprefix("end to end: "): one for one in found}
        assert len(known) == 8 and known["foreign process named"]["left out"] == "there is no card"
        assert known["out of memory relieved"]["tokens of a pass"] == [1024, 512]
    if stage == "speed":
        assert next(one for one in found if one["what"] == "proof")["packed"]
        assert f"{PACKED}: " in (tmp_path / "summary.txt").read_text(encoding="utf-8")


RUN_SH = (PROJECT / "tests" / "card" / "run.sh").read_text(encoding="utf-8")
BOXED = re.compile(r'^(bench|stage) ("[^"]+"|\w+) (\d+) (.*?)( &)?$', re.MULTILINE)
"""A stage of run.sh at the left margin, which always runs: its time box in seconds, what it does, whether the next one runs beside it."""


def test_the_boxes_of_all_stages_fit_the_card_s_nine_minutes():
    boxes, beside = [], 0
    for _, name, box, doing, parallel in BOXED.findall(RUN_SH):
        boxes.append(max(int(box), beside) if not parallel else 0)
        beside = max(int(box), beside) if parallel else 0
        seconds = re.search(r"--seconds (\d+)", doing)
        assert not seconds or int(seconds[1]) < int(box), f"{name} would be ended before it could end itself."
    assert len(boxes) == 10 and sum(boxes) <= 530 - 25


def test_every_stage_of_the_card_s_check_is_one_that_its_program_knows():
    called = {doing.split()[0] for kind, _, _, doing, _ in BOXED.findall(RUN_SH) if kind == "bench"}
    assert called == STAGES.keys() - {"save"}, "save is called by unsloth.sh."


def test_a_run_on_a_card_is_one_that_the_studio_can_train_merge_and_write_as_gguf(tmp_path):
    """As far as seconds allow: its settings hold, its pairs have the lengths meant, its model loads whole."""
    settings = endtoend.settings_on(tmp_path, on_card=True, shape="tiny")
    assert Settings.from_yaml(settings.to_yaml()) == settings and settings.model.quantization == "nf4" and settings.model.device == "gpu"
    tokenizer = load_tokenizer(settings.model)
    lengths = [len(pair.chosen) for pair in tokens.tokenize(data.read(settings.data).pairs, tokenizer, settings.training.max_length)]
    assert len(lengths) == settings.data.rows and 250 < min(lengths) <= max(lengths) < settings.training.max_length
    base = load_base(settings.model.model_copy(update={"device": "cpu", "quantization": "none"}), tokenizer)
    assert gguf_shape.kind(base.config).name == "LLAMA" and vocabulary.way(vocabulary.described(tmp_path / "model"))
    assert base.num_parameters() == sum(weight.numel() for weight in load_file(tmp_path / "model" / "model.safetensors").values())


def test_a_watched_step_that_runs_out_of_memory_is_taken_again_with_the_same_pairs(tmp_path, monkeypatch):
    """What the end-to-end stage changes in a worker, here in this process: it must go on fitting the trainer."""
    for owner, name in ((ORPOTrainer, "_take"), (Scorer, "score")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it is put back
    attempts.watch(tmp_path, short_at=2)
    ours(settings_on("practice", **{"training.max_steps": 3}), tmp_path)
    tries = attempts.read(tmp_path)
    assert [(one["step"], "error" in one) for one in tries] == [(1, False), (2, True), (2, False), (3, False)]
    assert tries[1]["pairs"] == tries[2]["pairs"] != tries[3]["pairs"] and tries[2]["tokens"] < tries[1]["tokens"]


def test_a_finding_is_written_also_of_a_part_that_the_time_box_ends(tmp_path):
    say = Say(tmp_path)
    with pytest.raises(SystemExit), say.tried("a part") as found:
        found["so far"] = 1
        raise SystemExit(143)
    with say.tried("another"):
        raise ValueError("no")
    first, second = (json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines())
    assert say.failures == 2 and first["so far"] == 1 and "SystemExit" in first["failed"] and "ValueError: no" in second["trace"]


def test_targets_and_faster_rivals_are_said():
    def row(name, steps, recomputed):
        return {"shape": "8b", "base": "nf4", "set": name, "pairs": 2, "recomputed": recomputed, "step": steps,
                "peak_gb": dict.fromkeys(steps, 10.4), "share": {who: 0.6 for who in steps}}

    rows = [row("log-normal", {PACKED: 0.2, TRL: 0.6}, False), row("log-normal", {PACKED: 0.3, TRL: 0.5}, True),
            row(FULL, {PACKED: 0.4, TRL: 0.8, LIGER: 0.35}, False), {"shape": "8b", "base": "nf4", "set": "fixed", "failed": "OutOfMemoryError"}]
    assert verdicts(rows) == [
        "8b nf4: at real lengths 2.5 times TRL, each at its faster setting (aim 2).", "8b nf4: 60% of the measured matrix rate (aim 50 %).",
        "8b nf4: two pairs of 1,024 at most 10.4 GB (aim 11).", f"8b nf4: {LIGER} is faster at {FULL}: 350 against 400 ms."]


@pytest.mark.parametrize(("who", "recomputed", "kernels", "gigabytes"), [
    ("packed", 0, 5_830, 273), ("kernels", 0, 3_430, 231),
    pytest.param("packed", 1, 8_310, 344, marks=pytest.mark.slow), pytest.param("kernels", 1, 5_260, 306, marks=pytest.mark.slow)])
def test_a_step_of_an_8b_model_on_4_bits_launches_and_moves_no_more_than_it_did_and_never_waits_for_the_card(who, recomputed, kernels, gigabytes):
    """Counted on fake tensors that say they are on a card, for a pass of two pairs."""
    asked = ["8b", "nf4", who, "512,512,512", "2", str(recomputed)]
    said = subprocess.run([sys.executable, "-m", "tests.card.trace", *asked], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=250).stdout
    counted = re.search(r"^(\d+) kernels, ([\d.]+) GB, .*; the host waits: never;", said, re.MULTILINE)
    assert counted and int(counted[1]) <= kernels and float(counted[2]) <= gigabytes, said


def test_the_useful_work_of_a_step_is_what_torch_counts_in_its_products():
    model = contenders.model_of(3_000, layers=2)
    batch = next(batches("fixed", 3_000, seed=1, scale=0.5))
    step = contenders.contenders(model, batch)[PACKED]
    in_place = {torch.ops.aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1]}  # torch's own list lacks it
    with FlopCounterMode(display=False, custom_mapping=in_place) as counted:
        step(batch)
    # Torch does not count attention on a CPU, and the first layer's inputs need no gradient.
    useful = contenders.useful_flops(model, batch, recomputed=False)
    assert 0.9 < counted.get_total_flops() / useful < 1
