"""Seconds, peak memory and share of the matrix rate of each contender, interleaved, on one model."""

import gc
import time
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from studio.engine.orpo import packing
from studio.engine.orpo.attention import branching
from studio.engine.orpo.forwards import evaluating, replaced
from studio.engine.orpo.scoring import _deviations, _unpacked
from tests.benchmarks.contenders import PACKED, PADDED, TRL, gradient_of, useful_flops
from tests.benchmarks.lengths import PAIRS, batches
from tests.card.contenders import UNFUSED, checkpointing, contenders, once
from tests.card.findings import left, table, timed, wait
from tests.card.models import VOCABULARY, model_of


def speed(asked, say, device) -> None:
    """Seconds, peak memory and share of the matrix rate of each contender, interleaved, on one model."""
    cuda = device.type == "cuda"
    words, scale = (2000, 0.05) if asked.tiny else (VOCABULARY, 1.0)
    known = dict(shape="tiny" if asked.tiny else asked.shape, base=asked.base)
    with say.tried("model made", **known) as found:
        model = model_of(known["shape"], asked.base, device, torch.bfloat16, words)
        if cuda:
            found["bytes"] = torch.cuda.memory_allocated()
    square = 8192 if cuda else 256
    rate = 2 * square**3 / timed(partial(torch.mm, *(torch.randn(square, square, device=device, dtype=torch.bfloat16) for _ in range(2))), device, 6)
    running, rows = None, []
    for on in {"none": (False,), "full": (True,), "both": (False, True)}[asked.checkpointing]:
        for name in asked.sets.split(","):
            if left(asked) < 10:
                say("out of time", before=(name, on))
                table(say, rows)
                return
            found = list(islice(batches(name, words, seed=1, scale=scale), 1 + asked.timed))
            with say.tried("speed", **known, set=name, pairs=PAIRS[name], recomputed=on) as row:
                if running is None:
                    running = contenders(model, found[0], device, asked.contenders.split(";"))
                    scorer = running.pop("_packed")
                    say("proof", **known, packed=not hasattr(scorer, "refused"), reason=getattr(scorer, "refused", scorer.reason), kernels=scorer.kernels,
                        **how_far(scorer, found[0]))
                checkpointing(model, on)
                if on:  # ours keeps the last layer, the others none
                    last = [layer for layer in model.modules() if type(layer).__name__ == "LlamaDecoderLayer"][-1]
                seconds, peaks, failed, losses = {who: [] for who in running}, {}, {}, {}
                for turn, batch in enumerate(found):
                    for who, step in running.items():
                        if who in failed:
                            continue
                        if on:
                            last.gradient_checkpointing = who not in (PACKED, PADDED, UNFUSED)
                        taken, peak, loss, why = once(step, batch, model, device)
                        if why:
                            failed[who] = why
                            model.zero_grad(set_to_none=True)
                            gc.collect()
                            if cuda:
                                torch.cuda.empty_cache()
                            continue
                        losses.setdefault(who, loss)
                        peaks[who] = max(peak, peaks.get(who, 0))
                        if turn:
                            seconds[who].append(taken)
                middle = {who: median(taken) for who, taken in seconds.items() if taken}
                flops = median(useful_flops(model, batch, on) for batch in found[1:])
                row |= {"seconds_all": seconds, "step": {who: round(taken, 4) for who, taken in middle.items()}, "peak_gb": {
                    who: round(peak / 1e9, 2) for who, peak in peaks.items()}, "loss": losses, "failed_who": failed, "matrix_rate": rate,
                    "share": {who: round(flops / taken / rate, 3) for who, taken in middle.items()},
                    "times_trl": {who: round(middle[TRL] / taken, 2) for who, taken in middle.items()} if TRL in middle else {},
                    "pairs_s": {who: round(PAIRS[name] / taken, 2) for who, taken in middle.items()}}
            rows.append(known | {"set": name, "pairs": PAIRS[name], "recomputed": on} | row)
        if asked.profile and not on and running and PACKED in running and left(asked) > 15:
            with say.tried("profile", **known) as row:
                row |= profile(running[PACKED], found[-1], model, device, say.folder / "profile.txt", f"{known['shape']} {asked.base}, {name}")
    table(say, rows)


@torch.no_grad()
def how_far(scorer, pairs) -> dict:
    """How far packed hidden states are from separate ones, token by token: what the limit of the proof should be."""
    with evaluating(scorer.causal):
        with replaced(scorer._forwards), branching(scorer.causal), scorer.computing():
            packed, _ = scorer._hidden(scorer.batch(packing.weigh(pairs, len(pairs))))
        with scorer.computing():
            alone = scorer._separate(pairs)
        with replaced(scorer._forwards), scorer.computing():  # our layers, nothing packed: what arithmetic alone does
            layers = scorer._separate(pairs)
    off, packed = {}, _unpacked(packed[0], pairs)
    for name, one, other in (("packed", packed, alone), ("layers alone", layers, alone), ("packing alone", packed, layers)):
        each = _deviations(one, other)
        off[name] = {"mean": each.mean().item(), "99 %": each.quantile(0.99).item(), "max": each.max().item()}
    return {"off": off}


def profile(step, batch, model, device, path: Path, title: str) -> dict:
    """The kernels of one step, the card's idle share and how many were launched; the table is added to `path`."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    cuda = device.type == "cuda"
    step(batch)
    gradient_of(model)
    with watch(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as seen:
        wait(device)
        began = time.perf_counter()
        step(batch)
        wait(device)
        taken = time.perf_counter() - began
    gradient_of(model)
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n===== {title}: {taken * 1e3:.1f} ms under the profiler\n")
        file.write(seen.key_averages().table(sort_by=order, row_limit=45, max_name_column_width=90))
    found = {"ms": taken * 1e3}
    kernels_ = sorted((event.start_ns(), event.start_ns() + event.duration_ns(), event.name()) for event in seen.profiler.kineto_results.events()
                      if event.device_type() == torch.autograd.DeviceType.CUDA)
    if kernels_:
        busy, end = 0, 0
        for start, stop, _ in kernels_:
            busy += max(0, stop - max(start, end))
            end = max(end, stop)
        whole = kernels_[-1][1] - kernels_[0][0]
        kinds: dict[str, list[float]] = {}
        for start, stop, name in kernels_:
            kind = next((word for word in ("gemm", "cutlass", "nvjet", "flash", "dequant", "kDequant", "elementwise", "reduce", "index", "Memcpy",
                                           "Memset", "rms_norm", "layer_norm", "cat", "copy", "norm") if word.lower() in name.lower()), "other")
            one = kinds.setdefault(kind, [0, 0.0])
            one[0], one[1] = one[0] + 1, one[1] + (stop - start) / 1e6
        found |= {"kernels": len(kernels_), "busy_ms": busy / 1e6, "idle_share": round(1 - busy / whole, 3), "kinds": kinds}
    return found
