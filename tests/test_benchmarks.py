"""The benchmarks run: their gates hold on a small scale, and the GPU's script goes its whole way on the CPU."""

import json
from itertools import islice

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import contenders, cpu, gpu
from tests.benchmarks.contenders import PACKED, PADDED, TRL
from tests.benchmarks.lengths import FULL, SETS, batches

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


def test_the_gpu_s_script_goes_its_whole_way_on_the_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "VOCABULARY", 3_000)
    monkeypatch.setattr(gpu, "TIMED", 1)
    monkeypatch.setattr(gpu, "PAIRS", {"log-normal": 4, FULL: 2})
    monkeypatch.setattr("sys.argv", ["gpu", "--shape", "toy", "--device", "cpu", "--out", str(tmp_path)])
    gpu.main()
    result = json.loads((tmp_path / "gpu-toy-bf16.json").read_text(encoding="utf-8"))
    assert {PACKED, PADDED, TRL} <= set(result["exactness"])
    for row in result["steps"]:
        assert row["times_trl"][TRL] == 1 and row["pairs_per_second"][PACKED] > 0 and not row["failed"]
        assert abs(row["first_loss"][PACKED] - row["first_loss"][TRL]) < gpu.SAME_LOSS
    assert "times TRL, each at its faster setting (aim 2)" in capsys.readouterr().out


def test_targets_and_faster_rivals_are_said():
    def row(name, speeds, checkpointing):
        return {"set": name, "pairs": 2, "checkpointing": checkpointing, "pairs_per_second": speeds, "failed": {},
                "peak_bytes": dict.fromkeys(speeds, 10.4e9), "share_of_matrix_rate": {who: speed / 10 for who, speed in speeds.items()}}

    rows = [row("log-normal", {PACKED: 6.0, TRL: 2.0}, False), row("log-normal", {PACKED: 5.0, TRL: 2.4}, True),
            row(FULL, {PACKED: 4.0, TRL: 1.0, gpu.UNSLOTH: 4.5}, False)]
    told = gpu.verdicts({"shape": "8b", "base": "nf4", "steps": rows})
    assert told == ["At real lengths 2.5 times TRL, each at its faster setting (aim 2).", "60% of the measured matrix rate (aim 50 %).",
                    "Two pairs of 1,024: 10.4 GB (aim 11).", "Unsloth is faster at full length: 4.50 against 4.00 pairs/s."]


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
