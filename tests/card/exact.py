"""Ours and TRL on the same pairs: equal in float32; in bfloat16 and on a 4-bit base how far each is from float32."""

import torch

from studio.engine.orpo import attention
from tests.benchmarks.contenders import PACKED, PADDED, TRL, gradient_of
from tests.benchmarks.lengths import batches
from tests.card.contenders import LIGER, LIGER_LOSS, LIGER_NOTE, UNFUSED, checkpointing, contenders, ours
from tests.card.findings import apart
from tests.card.models import model_of


def exact(asked, say, device) -> None:
    """Ours and TRL on the same pairs: equal in float32; in bfloat16 and on a 4-bit base how far each is from float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    shape, words = ("tiny", 2000) if asked.tiny else ("small", 32_000)
    pairs = next(batches("log-normal", words, seed=5, scale=0.05 if asked.tiny else 0.5))
    whole = model_of(shape, "none", device, torch.float32, words)
    truth, loss = None, None
    with say.tried("float32 against TRL") as found:
        running = contenders(whole, pairs, device, (PACKED, PADDED, TRL))
        found["proof"], found["kernels"] = running["_packed"].reason, running["_packed"].kernels
        loss = running[TRL](pairs).item()
        truth = gradient_of(whole)
        for who in (PACKED, PADDED):
            found[who] = {"loss": abs(running[who](pairs).item() - loss), "gradient": apart(gradient_of(whole), truth)}
        checkpointing(whole, True)
        found["packed, recomputed"] = {"loss": abs(running[PACKED](pairs).item() - loss), "gradient": apart(gradient_of(whole), truth)}
    if truth is None:
        return
    with say.tried("TRL with Liger in float32, against TRL", note=LIGER_NOTE) as found:
        checkpointing(whole, False)
        running = contenders(whole, pairs, device, (LIGER, LIGER_LOSS))
        for who in {LIGER, LIGER_LOSS} & running.keys():
            try:
                found[who] = {"loss": abs(running[who](pairs).item() - loss), "gradient": apart(gradient_of(whole), truth)}
            except Exception as error:
                whole.zero_grad(set_to_none=True)
                found[who] = f"cannot be used: {type(error).__name__}: {error}"[:400]
    with say.tried("bfloat16: error against float32") as found:
        half = model_of(shape, "none", device, torch.bfloat16, words)
        for one, two in zip(half.parameters(), whole.parameters(), strict=True):
            one.data.copy_(two.data)
        running = contenders(half, pairs, device, (PACKED, PADDED, TRL, UNFUSED))
        found["proof"] = running.pop("_packed").reason
        for who, step in running.items():
            found[who] = {"loss": abs(step(pairs).item() - loss), "gradient": apart(gradient_of(half), truth)}
    with say.tried("4 bits: ours against TRL on the same base") as found:
        small = model_of(shape, "nf4", device, torch.bfloat16, words)
        running = contenders(small, pairs, device, (PACKED, PADDED, TRL, UNFUSED))
        found["proof"] = running.pop("_packed").reason
        said = {who: (step(pairs).item(), gradient_of(small)) for who, step in running.items()}
        for who in said:
            found[who] = {"loss": abs(said[who][0] - said[TRL][0]), "gradient": apart(said[who][1], said[TRL][1])}
    with say.tried("a pass on 4 bits never waits for the card") as found:
        if device.type == "cuda":
            ours(running_scorer := contenders(small, pairs, device, (PACKED,))["_packed"], pairs)
            gradient_of(small)
            torch.cuda.set_sync_debug_mode("error")
            try:
                ours(running_scorer, pairs)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            found["it does not"] = True
    with say.tried("float16, as on a T4") as found:
        if device.type == "cuda":
            half = model_of(shape, "none", device, torch.float16, words)
            for one, two in zip(half.parameters(), whole.parameters(), strict=True):
                one.data.copy_(two.data)
            running, takes = contenders(half, pairs, device, (PACKED,)), attention._takes_varlen
            attention._takes_varlen = lambda *_: False  # no such kernel on a T4
            try:
                found[PACKED] = {"loss": abs(running[PACKED](pairs).item() - loss), "gradient": apart(gradient_of(half), truth)}
            finally:
                attention._takes_varlen = takes
