"""Which implementation of each part of the arithmetic a run computes with, tried on the card at hand.

At the start of a run each Triton kernel is compared with torch's operators in tensors of the model's sizes: it is used if it is no
further from the result in 32 bits, gradients included, and faster. What cannot be compiled or tried is not used.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from studio.engine.orpo import gated, layers, relief, rotary
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic
from studio.engine.orpo.head import Frozen, FrozenLogps, Head
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

NAMES = {"gated": "gated products", "norm": "norms", "rotary": "rotary positions", "tile": "the head's softmax",
         "add_product": "sums within the head's products", "unpack": "the unpacking of 4-bit weights"}
"""In the log of a run."""

Tensors = list[torch.Tensor]
Clock = Callable[[Callable[[], object]], float]
"""Measures the seconds of a call."""


@dataclass(frozen=True)
class Trial:
    """One part: how to compute with an implementation, from inputs (floating point) whose gradients are compared as well."""

    part: str
    inputs: Tensors
    compute: Callable[[Arithmetic, Tensors], Tensors]
    is_exact: bool = False
    """Whether the results must be equal to the last bit; there are no gradients then."""


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
    for trial in _trials(causal, dtype, _device(causal)):
        outcome = _outcome(trial, arithmetic, FUSED, seconds or _on_the_card)
        if not outcome.why_not:
            arithmetic = replace(arithmetic, **{trial.part: getattr(FUSED, trial.part)})
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


def _outcome(trial: Trial, plain: Arithmetic, fused: Arithmetic, seconds: Clock) -> Outcome:
    candidate = replace(plain, **{trial.part: getattr(fused, trial.part)})
    try:
        if deviates := _deviation(trial, plain, candidate):
            return Outcome(trial.part, why_not=f"the result of our kernel deviates by {deviates:.0e}")
        taken = [seconds(lambda arithmetic=arithmetic: _computed(trial, arithmetic, trial.inputs)) for arithmetic in (plain, candidate)]
    except Exception as error:  # a compiler that is missing, a card that Triton does not know, memory that another process holds
        if "CUDA error" in str(error) and not relief.ran_out(error):  # after which this process cannot compute on the card any more
            raise StudioError(f"One of our kernels, for {NAMES[trial.part]}, fails on this card ({_first_line(error)}). "
                              f"Set the environment variable {SWITCH} to off and start the studio again.") from error
        return Outcome(trial.part, why_not=f"our kernel fails with {_first_line(error)}")
    speed = taken[0] / taken[1]
    return Outcome(trial.part, speed, "" if speed >= FASTER else f"our kernel is {speed:.2f} times as fast")


def _deviation(trial: Trial, plain: Arithmetic, candidate: Arithmetic) -> float:
    """How far the candidate is from the result in 32 bits where it is further than allowed, relative to its norm; else 0."""
    if trial.is_exact:
        theirs, ours = (_computed(trial, arithmetic, trial.inputs) for arithmetic in (plain, candidate))
        return max(_apart(ours, theirs)) if not all(map(torch.equal, ours, theirs)) else 0.0
    exact = _computed(trial, plain, [one.float() for one in trial.inputs])
    far = [_apart(_computed(trial, arithmetic, trial.inputs), exact) for arithmetic in (plain, candidate)]
    return max((ours for theirs, ours in zip(*far, strict=True) if not ours <= NO_FURTHER * theirs + ROUNDING), default=0.0)


def _computed(trial: Trial, arithmetic: Arithmetic, inputs: Tensors) -> Tensors:
    """Results and gradients by all inputs, for one and the same gradient of each result."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    results = trial.compute(arithmetic, leaves)
    if trial.is_exact:
        return results
    # In the type of the trial, so that all computations of it are given the same numbers.
    upstream = [torch.linspace(-1, 1, one.numel(), device=one.device).view(one.shape).to(trial.inputs[0].dtype) for one in results]
    gradients = [given.to(one.dtype) for given, one in zip(upstream, results, strict=True)]
    return [one.detach() for one in results] + list(torch.autograd.grad(results, leaves, gradients))


def _apart(ours: Tensors, exact: Tensors) -> list[float]:
    return [((one.float() - other.float()).norm() / other.float().norm()).item() for one, other in zip(ours, exact, strict=True)]


def _on_the_card(call: Callable[[], object]) -> float:
    """Seconds of a call: the fastest of some rounds, after one that is not counted."""
    found = []
    for _ in range(1 + ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(REPEATS):
            call()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - began) / REPEATS)
    return min(found[1:])


# --- what is tried ----------------------------------------------------------------------------------------------------


def _trials(causal: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> Iterator[Trial]:
    """The parts that this model has, one after another, so that their tensors are not in memory together."""
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    for part in (_gated, _norm, _rotary):
        if (found := part(causal, random)) is not None:
            yield found
    packed = [module for module in causal.modules() if type(module).__name__ == "Linear4bit"]
    if packed:
        largest = max(packed, key=lambda module: module.weight.numel())
        yield Trial("unpack", [], lambda arithmetic, given: [arithmetic.unpack(largest)], is_exact=True)
    if (frozen := Head(causal).frozen) is not None:
        for part in ("tile", "add_product"):
            yield _head(part, frozen, random)


def _gated(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    kind = next((kind for module in causal.modules() if (kind := gated.kind_of(module))), None)
    if kind is None:
        return None
    width = causal.config.get_text_config().intermediate_size
    inputs = [random(ROWS, width), random(ROWS, width), random(RANK, width)]
    return Trial("gated", inputs, lambda arithmetic, given: list(
        gated.ProductAndNarrowed.apply(*given[:2], kind, arithmetic.gated, given[2], 0.0)))


def _norm(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    scale = next((scale for module in causal.modules() if (scale := layers.scale_of(module)) is not None), None)
    if scale is None:
        return None
    rows = random(ROWS, len(scale))
    # Gemma's scale is in 32 bits, whatever it is multiplied with.
    scales = {rows.dtype: scale, torch.float32: scale.float()}
    return Trial("norm", [rows], lambda arithmetic, given: [arithmetic.norm(scales[given[0].dtype], 1e-6, *given)])


def _rotary(causal: PreTrainedModel, random: Callable[..., torch.Tensor]) -> Trial | None:
    own, config = next(iter(rotary.functions(causal).values()), None), causal.config.get_text_config()
    if own is None:
        return None
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    inputs = [random(1, ROWS, count, width).transpose(1, 2) for count in (heads, getattr(config, "num_key_value_heads", None) or heads)]
    angles = torch.rand(1, ROWS, width // 2, device=inputs[0].device).mul_(6.28).repeat(1, 1, 2)
    sides = [side.to(inputs[0].dtype) for side in (angles.cos(), angles.sin())]
    return Trial("rotary", inputs, lambda arithmetic, given: list(
        (arithmetic.rotary or own)(*given, *(side.to(given[0].dtype) for side in sides))))


def _head(part: str, frozen: Frozen, random: Callable[..., torch.Tensor]) -> Trial:
    words = torch.arange(min(WORDS, len(frozen.weight)), device=random(1).device)
    few = replace(frozen, weight=frozen.rows(words), bias=None if frozen.bias is None else frozen.bias[:WORDS])
    heads = {one.weight.dtype: one for one in (few, replace(few, weight=few.weight.float()))}
    hidden = random(ROWS, few.weight.shape[1])
    targets = torch.arange(ROWS, device=hidden.device) * 7 % len(few.weight)
    return Trial(part, [hidden], lambda arithmetic, given: [FrozenLogps.apply(*given, targets, heads[given[0].dtype], arithmetic)])
