"""What is compared on the same pairs: the engine, TRL as its Trainer runs it, TRL with Liger's layers, and with Liger's loss as well.

All of them run on one model with adapters in float32. TRL's own QLoRA setup would also keep the norms in float32, which is slower.
"""

import tempfile
import time
from contextlib import contextmanager

import torch
from torch.nn.utils.rnn import pad_sequence

from studio.engine.orpo import memory, packing, trial
from studio.engine.orpo.arithmetic import PLAIN
from studio.engine.orpo.forwards import replaced
from studio.engine.orpo.scoring import Scorer
from tests.benchmarks.contenders import BETA, PACKED, PADDED, TRL, gradient_of
from tests.card.findings import wait
from tests.reference import reference_step

LIGER, LIGER_LOSS, UNFUSED = "TRL + Liger's layers", "TRL + Liger's layers and loss", "ours, torch's operators"
LIGER_NOTE = ("TRL's ORPOTrainer offers Liger's layers only (use_liger_kernel). Liger's ORPO loss is run here on batches padded as TRL's, "
              "with Liger's layers, and not compiled, because compiling takes longer than the steps that are timed.")


def ours(scorer, pairs, budget: int = 16384):
    """As a run does it: passes of `budget` tokens, metrics kept on the card."""
    total, metrics = 0.0, 0.0
    with scorer.attending():
        for batch in scorer.batches(packing.weigh(pairs, len(pairs)), budget):
            scores, _ = scorer.score(batch)
            loss = scores.loss(BETA, batch.shares)
            loss.backward()
            total, metrics = total + loss.detach(), metrics + scores.metrics(BETA, batch.shares)
    return total


@contextmanager
def ligers_layers(model):
    """Liger's rotary positions, norms and gated products in the model meanwhile: what TRL with `use_liger_kernel` computes with."""
    from liger_kernel.transformers.functional import liger_rms_norm, liger_swiglu
    from liger_kernel.transformers.rope import liger_rotary_pos_emb
    from transformers.models.llama import modeling_llama as llama

    forwards = {}
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            forwards[module] = lambda x, m=module: liger_rms_norm(x, m.weight, m.variance_epsilon)
        elif type(module).__name__ == "LlamaMLP":
            forwards[module] = lambda x, m=module: m.down_proj(liger_swiglu(m.gate_proj(x), m.up_proj(x)))
    own, llama.apply_rotary_pos_emb = llama.apply_rotary_pos_emb, liger_rotary_pos_emb
    try:
        with replaced(forwards):
            yield
    finally:
        llama.apply_rotary_pos_emb = own


def ligers_step(model, half: bool):
    """A step by Liger's fused head and ORPO loss, on rows padded as TRL's collator pads them: a function of encoded pairs that leaves
    gradients and returns the loss, shape (). `half`: the layers run under autocast to bfloat16, as TRL's Trainer has them.
    """
    from liger_kernel.chunked_loss import LigerFusedLinearORPOLoss

    fused, causal = LigerFusedLinearORPOLoss(beta=BETA, compiled=False), model.get_base_model()
    device, head = model.device, causal.get_output_embeddings().weight

    def step(pairs) -> torch.Tensor:
        rows = [torch.as_tensor(ids, dtype=torch.long) for side in ("chosen", "rejected") for ids in (getattr(pair, side) for pair in pairs)]
        ids = pad_sequence(rows, batch_first=True).to(device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
        everything = torch.where(mask == 1, ids, -100)
        answers = everything.clone()
        for place, pair in enumerate([*pairs, *pairs]):
            answers[place, : pair.prompt] = -100
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            hidden = causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        loss, _ = fused(head, hidden[:, :-1].to(head.dtype), answers[:, 1:], nll_target=everything[:, 1:])
        loss.backward()
        return loss.detach()

    return step


def contenders(model, example, device, names) -> dict:
    """Each by name: takes the pairs of a step, leaves gradients on the model, returns the loss."""
    half = model.get_input_embeddings().weight.dtype == torch.bfloat16
    arithmetic, words = trial.chosen(model.get_base_model(), torch.bfloat16 if half else torch.float32)
    packed, padded, found = Scorer(model, filler=0, arithmetic=arithmetic), Scorer(model, filler=0, arithmetic=arithmetic), {}
    packed.choose(example)
    packed.kernels = words
    if not packed.packed:  # its proof failed: that is a finding; it is timed all the same
        packed.packed, packed.refused = True, packed.reason
    if PACKED in names:
        found[PACKED] = lambda pairs: ours(packed, pairs)
    if UNFUSED in names and arithmetic != PLAIN:
        unfused = Scorer(model, filler=0)
        unfused.packed = True
        found[UNFUSED] = lambda pairs: ours(unfused, pairs)
    if PADDED in names:
        found[PADDED] = lambda pairs: ours(padded, pairs)
    if LIGER_LOSS in names and device.type == "cuda":
        def with_ligers_loss(pairs):
            with ligers_layers(model):
                return ligers_step(model, half)(pairs)

        found[LIGER_LOSS] = with_ligers_loss
    if {TRL, LIGER} & set(names):
        trl = reference_step(model, BETA, tempfile.mkdtemp(), as_it_runs=half, bf16=half)
        if TRL in names:
            found[TRL] = trl
        if LIGER in names and device.type == "cuda":
            def with_liger(pairs):
                with ligers_layers(model):
                    return trl(pairs)

            found[LIGER] = with_liger
    return found | {"_packed": packed}


def checkpointing(model, on: bool) -> None:
    """All layers but the last recomputed, or none."""
    memory.recompute(model.get_base_model(), model.config.num_hidden_layers if on else 0)


def once(step, batch, model, device):
    """(seconds, peak bytes, loss, why it failed) of one step."""
    cuda = device.type == "cuda"
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        wait(device)
        began = time.perf_counter()
        loss = step(batch)
        wait(device)
        taken = time.perf_counter() - began
        assert gradient_of(model).norm() > 0, "no gradient"
        return taken, torch.cuda.max_memory_allocated() if cuda else 0, loss.item(), ""
    except torch.OutOfMemoryError:
        return 0, 0, 0, "out of memory"
    except Exception as error:
        return 0, 0, 0, f"{type(error).__name__}: {error}"[:300]
