"""The benchmarks run: their gates hold on a small scale, and the GPU's script goes its whole way on the CPU."""

import json
import re
import subprocess
import sys
from itertools import islice

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from studio.jobs import PROJECT
from tests.benchmarks import contenders, cpu
from tests.benchmarks.contenders import PACKED, PADDED, TRL
from tests.benchmarks.lengths import FULL, SETS, batches
from tests.card.contenders import LIGER
from tests.card.findings import verdicts

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


@pytest.mark.parametrize("stage", ["exact", "speed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("probe", "tune"))])
def test_a_stage_of_the_card_s_check_goes_its_whole_way_on_the_cpu(tmp_path, stage):
    more = ["--sets", "log-normal", "--checkpointing", "none", "--timed", "1"] if stage == "speed" else []
    subprocess.run([sys.executable, "-m", "tests.card", stage, "--out", str(tmp_path), "--device", "cpu", "--tiny", *more], cwd=PROJECT, check=True,
                   capture_output=True, timeout=250)
    found = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found and not [one for one in found if one.get("failed") or one.get("failed_who")]
    if stage == "exact":
        same = next(one for one in found if one["what"] == "float32 against TRL")
        assert all(same[who]["loss"] < 2e-6 and same[who]["gradient"] < 5e-6 for who in (PACKED, PADDED, "packed, recomputed"))
    if stage == "speed":
        assert next(one for one in found if one["what"] == "proof")["packed"]
        assert f"{PACKED}: " in (tmp_path / "summary.txt").read_text(encoding="utf-8")


def test_targets_and_faster_rivals_are_said():
    def row(name, steps, recomputed):
        return {"shape": "8b", "base": "nf4", "set": name, "pairs": 2, "recomputed": recomputed, "step": steps,
                "peak_gb": dict.fromkeys(steps, 10.4), "share": {who: 0.6 for who in steps}}

    rows = [row("log-normal", {PACKED: 0.2, TRL: 0.6}, False), row("log-normal", {PACKED: 0.3, TRL: 0.5}, True),
            row(FULL, {PACKED: 0.4, TRL: 0.8, LIGER: 0.35}, False), {"shape": "8b", "base": "nf4", "set": "fixed", "failed": "OutOfMemoryError"}]
    assert verdicts(rows) == [
        "8b nf4: at real lengths 2.5 times TRL, each at its faster setting (aim 2).", "8b nf4: 60% of the measured matrix rate (aim 50 %).",
        "8b nf4: two pairs of 1,024 at most 10.4 GB (aim 11).", f"8b nf4: {LIGER} is faster at {FULL}: 350 against 400 ms."]


@pytest.mark.parametrize(("who", "recomputed", "most"), [("packed", 0, 5_640), ("kernels", 0, 4_290), pytest.param("packed", 1, 8_120, marks=pytest.mark.slow),
                                                        pytest.param("kernels", 1, 6_490, marks=pytest.mark.slow)])
def test_a_step_of_an_8b_model_on_4_bits_launches_no_more_kernels_than_it_did_and_never_waits_for_the_card(who, recomputed, most):
    """Counted on fake tensors that say they are on a card, for a pass of two pairs."""
    asked = ["8b", "nf4", who, "512,512,512", "2", str(recomputed)]
    said = subprocess.run([sys.executable, "-m", "tests.card.trace", *asked], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=250).stdout
    counted = re.search(r"^(\d+) kernels, .*; the host waits: never;", said, re.MULTILINE)
    assert counted and int(counted[1]) <= most, said


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
