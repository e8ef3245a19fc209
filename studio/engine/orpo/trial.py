"""Which implementation of each part of the arithmetic a run computes with, tried on the card at hand.

At the start of a run each Triton kernel is compared with torch's operators in tensors of the model's sizes: it is used if it is no
further from the result in 32 bits, gradients included, and faster. What cannot be compiled or tried is not used.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

import torch
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from studio.engine.orpo import gated, layers, relief, rotary
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic
from studio.engine.orpo.head import FrozenLogps, Head
from studio.errors import StudioError

ROWS = 1024
"""Tokens of a trial."""
RANK = 16
"""Of the adapter that reads a gated product in a trial."""
WORDS = 16384
"""Words of a head that take part in a trial: in 32 bits the whole of it may not fit."""
FASTER = 1.05
"""A kernel must be this many times as fast as torch's operators."""
NO_FURTHER = 1.1
"""A kernel may deviate from the result in 32 bits this many times as far as torch's operators do."""
ROUNDING = 1e-6
"""And by this in any case, relative to the norm of the result."""
SWITCH = "ORPO_STUDIO_KERNELS"
"""The environment variable that, set to off, leaves our kernels alone."""
REPEATS, ROUNDS = 4, 5
"""Calls of a round that is timed, and rounds."""
AHEAD = 5_000_000
"""Cycles by which the host is ahead of the card in a round, 3 ms at 1.7 GHz: a guess at what the launches of a round take."""

NAMES = {"gated": "gated products", "norm": "norms", "rotary": "rotary positions", "tile": "the head's softmax",
         "add_product": "sums within the head's products", "unpack": "the unpacking of 4-bit weights"}
"""In the log of a run."""

Tensors = list[torch.Tensor]
Clock = Callable[[Callable[[], object]], float]
"""Measures the seconds of a call."""


@dataclass(frozen=True)
class Trial:
    """How to compute one part with an implementation, from floating-point inputs. Their gradients are compared as well."""

    inputs: Tensors
    compute: Callable[[Arithmetic, Tensors], Tensors]
    is_exact: bool = False
    """Whether results must match bit for bit. Gradients are not compared."""


@dataclass(frozen=True)
class Outcome:
    part: str
    speed: float = 0.0
    """How many times as fast as torch's operators."""
    why_not: str = ""


def chosen(causal: PreTrainedModel, dtype: torch.dtype, seconds: Clock | None = None) -> tuple[Arithmetic, str]:
    """The implementation of each part for a model that computes in `dtype`, and a sentence for the log of the run.

    All in torch's operators and nothing to say on a CPU. `seconds` measures a call.
    """
    if _device(causal).type != "cuda" and seconds is None:
        return PLAIN, ""
    if os.environ.get(SWITCH) == "off":
        return PLAIN, f"All arithmetic is in torch's operators, because {SWITCH} is off."
    try:
        from studio.engine.orpo.triton_kernels import FUSED  # here, because a torch for CPUs comes without Triton
    except Exception as error:
        return PLAIN, f"All arithmetic is in torch's operators, because Triton cannot be used here ({_first_line(error)})."
    found = list(outcomes(causal, dtype, seconds))
    relief.release()
    return replace(PLAIN, **{one.part: getattr(FUSED, one.part) for one in found if not one.why_not}), in_words(found)


def outcomes(causal: PreTrainedModel, dtype: torch.dtype, seconds: Clock | None = None) -> Iterator[Outcome]:
    """Each part that the model has, tried with the parts that were chosen before it."""
    from studio.engine.orpo.triton_kernels import FUSED

    arithmetic = PLAIN
    for part, trial_of in _trials(causal, dtype, _device(causal)).items():
        outcome = _outcome(part, trial_of, arithmetic, FUSED, seconds or _on_the_card)
        if outcome is None:
            continue
        if not outcome.why_not:
            arithmetic = replace(arithmetic, **{part: getattr(FUSED, part)})
        yield outcome


def _device(causal: PreTrainedModel) -> torch.device:
    """Where the adapter is, and so where the layers compute."""
    return next(weight for weight in causal.parameters() if weight.requires_grad).device


def in_words(outcomes: list[Outcome]) -> str:
    """What was chosen and why, as sentences."""
    used = [f"{NAMES[one.part]} ({one.speed:.1f} times as fast)" for one in outcomes if not one.why_not]
    sentences = [f"Our own kernels compute {_listed(used)}, each compared with torch's operators on this card."] if used else []
    reasons: dict[str, list[str]] = {}
    for one in outcomes:
        if one.why_not:
            reasons.setdefault(one.why_not, []).append(NAMES[one.part])
    return " ".join(sentences + [f"Torch's operators compute {_listed(names)}: {why}." for why, names in reasons.items()])


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


# --- one part ---------------------------------------------------------------------------------------------------------


def _outcome(part: str, trial_of: Callable[[], Trial | None], plain: Arithmetic, fused: Arithmetic, seconds: Clock) -> Outcome | None:
    """What came of a part's trial; None if the model does not have the part."""
    candidate = replace(plain, **{part: getattr(fused, part)})
    try:
        if (trial := trial_of()) is None:
            return None
        upstream = _upstream(trial, plain)
        if deviates := _deviation(trial, plain, candidate, upstream):
            return Outcome(part, why_not=f"the result of our kernel deviates by {deviates:.0e}")
        taken = [seconds(partial(_computed, trial, arithmetic, trial.inputs, upstream)) for arithmetic in (plain, candidate)]
    except Exception as error:  # a compiler that is missing, a card that Triton does not know, memory that another process holds
        if relief.ran_out(error):
            return Outcome(part, why_not="too little memory is free to try our kernel")
        if _is_broken(error):
            raise StudioError(f"One of our kernels, for {NAMES[part]}, fails on this card ({_first_line(error)}). "
                              f"Set the environment variable {SWITCH} to off and start the studio again.") from error
        return Outcome(part, why_not=f"our kernel fails with {_first_line(error)}")
    speed = taken[0] / taken[1]
    return Outcome(part, speed, "" if speed >= FASTER else f"our kernel is {speed:.2f} times as fast")


def _is_broken(error: Exception) -> bool:
    """Whether this process cannot compute on the card any more after an error. Triton and ROCm say that in words of their own."""
    if "CUDA error" in str(error):
        return True
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except Exception:
        return True
    return False


def _upstream(trial: Trial, plain: Arithmetic) -> Tensors:
    """A gradient of each result, in the type of the trial, so that all computations of it are given the same numbers."""
    if trial.is_exact:
        return []
    with torch.no_grad():
        return [torch.linspace(-1, 1, one.numel(), device=one.device).view(one.shape).to(trial.inputs[0].dtype)
                for one in trial.compute(plain, trial.inputs)]


def _deviation(trial: Trial, plain: Arithmetic, candidate: Arithmetic, upstream: Tensors) -> float:
    """How far the candidate is from the result in 32 bits where it is further than allowed, relative to its norm; else 0."""
    if trial.is_exact:
        theirs, ours = (_computed(trial, arithmetic, trial.inputs, upstream) for arithmetic in (plain, candidate))
        return max(_apart(ours, theirs)) if not all(map(torch.equal, ours, theirs)) else 0.0
    exact = _computed(trial, plain, [one.float() for one in trial.inputs], upstream)
    far = [_apart(_computed(trial, arithmetic, trial.inputs, upstream), exact) for arithmetic in (plain, candidate)]
    return max((ours for theirs, ours in zip(*far, strict=True) if not ours <= NO_FURTHER * theirs + ROUNDING), default=0.0)


def _computed(trial: Trial, arithmetic: Arithmetic, inputs: Tensors, upstream: Tensors) -> Tensors:
    """Results and gradients by all inputs."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    results = trial.compute(arithmetic, leaves)
    if trial.is_exact:
        return results
    gradients = [given.to(one.dtype) for given, one in zip(upstream, results, strict=True)]
    return [one.detach() for one in results] + list(torch.autograd.grad(results, leaves, gradients))


def _apart(ours: Tensors, exact: Tensors) -> list[float]:
    return [((one.float() - other.float()).norm() / other.float().norm()).item() for one, other in zip(ours, exact, strict=True)]


def _on_the_card(call: Callable[[], object]) -> float:
    """The card's seconds for a call: the fastest of some rounds, after one that is not counted.

    A trial is short, so that its kernels take less time than their launches from Python; in a pass the card is behind. It is kept
    waiting here until the calls are in its queue.
    """
    found = []
    for _ in range(1 + ROUNDS):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(AHEAD)
        began.record()
        for _ in range(REPEATS):
            call()
        ended.record()
        torch.cuda.synchronize()
        found.append(began.elapsed_time(ended) / 1000 / REPEATS)
    return min(found[1:])


# --- what is tried ----------------------------------------------------------------------------------------------------


def _trials(causal: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> dict[str, Callable[[], Trial | None]]:
    """A trial of each part, made when it is its turn, so that their tensors are not in memory together; None if the model lacks it."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    made = {"gated": _gated, "norm": _norm, "rotary": _rotary, "unpack": _unpack, "tile": _head, "add_product": _head}
    return {part: partial(trial_of, causal, random) for part, trial_of in made.items()}


def _gated(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    # The down projections of experts are one tensor: such modules compute by the model's own code.
    found = [(kind, width) for module in causal.modules() if (kind := gated.kind_of(module))
             and (width := getattr(module.down_proj, "in_features", None))]
    if not found:
        return None
    kind, width = max(found, key=itemgetter(1))
    inputs = [random(ROWS, width), random(ROWS, width), random(RANK, width)]
    return Trial(inputs, lambda arithmetic, given: list(
        gated.ProductAndNarrowed.apply(*given[:2], kind, arithmetic.gated, given[2], 0.0)))


def _norm(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    scale = next((scale for module in causal.modules() if (scale := layers.scale_of(module)) is not None), None)
    if scale is None:
        return None
    rows = random(ROWS, len(scale))
    # Gemma's scale is in 32 bits, whatever it is multiplied with.
    scales = {rows.dtype: scale, torch.float32: scale.float()}
    return Trial([rows], lambda arithmetic, given: [arithmetic.norm(scales[given[0].dtype], 1e-6, *given)])


def _rotary(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    # A family's function may turn other pairs of numbers than Llama's, or want angles of another shape: then it is not replaced.
    own = next((own for own in rotary.functions(causal).values() if rotary.is_same(own, apply_rotary_pos_emb, random(1).device)), None)
    if own is None:
        return None
    config = causal.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    inputs = [random(1, ROWS, count, width).transpose(1, 2) for count in (heads, getattr(config, "num_key_value_heads", None) or heads)]
    angles = random(1, ROWS, width // 2).float().mul_(3).repeat(1, 1, 2)
    sides = [side.to(inputs[0].dtype) for side in (angles.cos(), angles.sin())]
    return Trial(inputs, lambda arithmetic, given: list(
        (arithmetic.rotary or own)(*given, *(side.to(given[0].dtype) for side in sides))))


def _unpack(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    packed = [module for module in causal.modules() if type(module).__name__ == "Linear4bit"]
    if not packed:
        return None
    largest = max(packed, key=lambda module: module.weight.numel())
    return Trial([], lambda arithmetic, given: [arithmetic.unpack(largest)], is_exact=True)


def _head(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    if (frozen := Head(causal).frozen) is None:
        return None
    words = torch.arange(min(WORDS, len(frozen.weight)), device=random(1).device)
    few = replace(frozen, weight=frozen.rows(words), bias=None if frozen.bias is None else frozen.bias[:WORDS])
    heads = {one.weight.dtype: one for one in (few, replace(few, weight=few.weight.float()))}
    hidden = random(ROWS, few.weight.shape[1])
    targets = torch.arange(ROWS, device=hidden.device) * 7 % len(few.weight)
    return Trial([hidden], lambda arithmetic, given: [FrozenLogps.apply(*given, targets, heads[given[0].dtype], arithmetic)])
