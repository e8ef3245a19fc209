"""Will a run fit: the peak of its memory by arithmetic, part by part, and what to change if it does not.

Fitted to what autograd keeps of tiny models and to the peaks of real runs; the tests hold it to within 15 % of both.
A measurement (`studio.two_steps`) is better than any of this.
"""

from dataclasses import dataclass, fields
from typing import Literal

from studio import names
from studio.installed import torch_build
from studio.passes import ENOUGH, FRAGMENTS, TOKENS_AT_ONCE, Kept, settled
from studio.settings import Settings
from studio.shape import Shape
from studio.summary import size

TILE_BYTES = {"cpu": 8 * 1024**2, "cuda": 64 * 1024**2}
"""The float32 logits that are held at one time."""

TILE_WORDS = 8192
"""Words of a head in RAM of which a card holds the weights at one time, twice: one tile is copied while the other is used."""

LIBRARIES = {"cpu": 500 * 2**20, "cuda": 700 * 2**20}
"""A worker before it has loaded a model: torch and the rest in RAM; on a card its context and the kernels' workspace."""

BUILT_FOR_CARDS = 350 * 2**20
"""Additional RAM of a CUDA or ROCm build of torch that computes on the CPU. After the same imports 2.11.0+cu130 used 698 MB and
2.13.0+cpu 298 MB; the peaks of a practice run differed by 332 MB."""

OPTIMIZER_BYTES = {"adamw_torch": 8, "paged_adamw_32bit": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0.1}
"""State for each trained weight."""

DROPS_WITH_ANOTHER = {"k_proj", "v_proj", "up_proj"}
"""Layers whose adapters have the same numbers of their input dropped as those of q_proj and gate_proj."""

MARGIN = 1.15
"""An estimate is this good; what fits with less room to spare is called tight."""

Kind = Literal["cpu", "cuda", "cuda before Ampere"]
"""What a run computes on. GPUs from Ampere on (compute capability 8.0) have an attention kernel for sequences of different lengths."""
Verdict = Literal["fits", "tight", "too large"]


@dataclass(frozen=True)
class Need:
    """The peak of a run's memory in bytes, by part."""

    model: float
    adapter: float
    optimizer: float
    activations: float
    head: float
    libraries: float
    loading: float
    """More than all the others together take while the weights are read; mostly 0."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(frozen=True)
class Fit:
    """A need against the free memory; `advice` is one sentence, empty for what fits.

    `offloaded` are the bytes of embedding matrix and head that stay in RAM instead of on the card.
    """

    need: Need
    free: int
    verdict: Verdict
    advice: str = ""
    offloaded: float = 0.0


def fit(settings: Settings, shape: Shape, free: int, kind: Kind, longest: int | None = None) -> Fit:
    """Whether a run fits into `free` bytes. `longest` is the longest pair in tokens, where it is known.

    A run uses spare memory for larger passes and less recomputing, so the verdict is about the minimum it needs.
    """
    planned, least = (needed(settings, shape, free, kind, longest, least=wanted) for wanted in (False, True))
    verdict = judged(least.total, free)
    advice = "" if verdict == "fits" else _advice(settings, shape, free, kind, longest)
    offloaded = shape.embeddings * _bytes_each(settings, kind) if offloads(settings, shape, free, kind, longest) else 0.0
    return Fit(planned if planned.total <= free else least, free, verdict, advice, offloaded)


def judged(total: float, free: int) -> Verdict:
    """The word for a need against the free memory."""
    return "fits" if total * MARGIN <= free else "tight" if total <= free else "too large"


def offloads(settings: Settings, shape: Shape, free: int, kind: Kind, longest: int | None = None) -> bool:
    """Whether a run keeps embedding matrix and head in RAM: never on a CPU, nor where an adapter stands on them; with auto only if it
    does not fit into `free` bytes otherwise.
    """
    wanted = settings.model.offload_embeddings
    if kind == "cpu" or wanted == "off" or names.outside_layers(settings.adapter.target_modules):
        return False
    resident = changed(settings, model__offload_embeddings="off")
    return wanted == "on" or judged(needed(resident, shape, free, kind, longest, least=True).total, free) != "fits"


def on_disk(settings: Settings, shape: Shape) -> float:
    """Bytes that a run leaves on the disk: its adapter, its checkpoints and the one that is being written besides."""
    trained = _trained(settings, shape)
    checkpoints = settings.training.keep_checkpoints + 1 if settings.training.checkpoint_every else 0
    best = 2 if settings.evaluation.keep == "best" else 0  # the one before is there until the new one is whole
    return (1 + best) * 4 * trained + checkpoints * (4 + OPTIMIZER_BYTES[settings.training.optimizer]) * trained


def _trained(settings: Settings, shape: Shape) -> int:
    """Weights of the adapter."""
    return sum(settings.adapter.rank * (one.inputs + one.outputs) * one.count for one in shape.targeted(settings.adapter.target_modules))


def needed(settings: Settings, shape: Shape, free: int, kind: Kind, longest: int | None = None, least: bool = False) -> Need:
    """Peak memory of a run as planned for `free` bytes, or with `least` the minimum it needs.

    Without `longest` every pair is taken to be as long as the settings allow.
    """
    bytes_each = _bytes_each(settings, kind)
    trained = _trained(settings, shape)
    # An adapter's weights and gradients are in 32 bits; products in 16 bits read a copy.
    whole, adapter = _frozen(settings, shape, bytes_each), (8.0 if is_wide(settings, kind) else 10.0) * trained
    offloaded = offloads(settings, shape, free, kind, longest)
    model = whole - shape.embeddings * bytes_each if offloaded else whole
    optimizer = OPTIMIZER_BYTES[settings.training.optimizer] * trained
    tokens = tokens_at_once(settings, kind, longest)
    libraries = LIBRARIES[device_of(kind)] + (BUILT_FOR_CARDS if kind == "cpu" and (torch_build().cuda or torch_build().hip) else 0)
    kept = Kept(kept_by_a_layer(settings, shape, kind) * shape.layers, shape.hidden * bytes_each, shape.layers,
                fragments=FRAGMENTS[device_of(kind)])
    enough = max(longest_of(settings, longest), min(tokens, ENOUGH[device_of(kind)]))
    tokens, recomputed = kept.plan(tokens, enough, enough if kind == "cpu" else longest_of(settings, longest),
                                   0 if least else free - model - adapter - libraries,
                                   settled(settings.training.gradient_checkpointing, shape.layers))
    activations = kept.needed(tokens, recomputed)
    # A tile of logits, and the hidden states that are scored with their slopes.
    head = 1.5 * min(TILE_BYTES[device_of(kind)], 4 * tokens * shape.vocabulary) + 2 * tokens * shape.hidden * bytes_each
    if offloaded:
        head += 2 * min(TILE_WORDS, shape.vocabulary) * shape.hidden * bytes_each
    running = model + adapter + optimizer + activations + head
    # On a CPU the file is mapped while its numbers are turned into the run's; a card reads it piece by piece, and what is offloaded
    # is moved from there to RAM.
    reading = whole + (shape.stored if kind == "cpu" and settings.model.quantization == "none" else 0.0)
    return Need(model, adapter, optimizer, activations, head, libraries, max(0.0, reading - running))


def device_of(kind: Kind) -> Literal["cpu", "cuda"]:
    """torch's word for the device."""
    return "cpu" if kind == "cpu" else "cuda"


def _bytes_each(settings: Settings, kind: Kind) -> int:
    """Bytes of a weight that is not quantized."""
    return 4 if is_wide(settings, kind) else 2


def is_wide(settings: Settings, kind: Kind) -> bool:
    """Whether the arithmetic is in 32 bits."""
    return settings.model.compute_dtype == "float32" or (settings.model.compute_dtype == "auto" and kind == "cpu")


def tokens_at_once(settings: Settings, kind: Kind, longest: int | None = None) -> int:
    """Tokens of one pass, as the trainer divides a step where memory is plenty."""
    longest, training = longest_of(settings, longest), settings.training
    return max(longest, min(training.batch_size * training.accumulation * longest, TOKENS_AT_ONCE[device_of(kind)]))


def longest_of(settings: Settings, longest: int | None) -> int:
    """Tokens of the longest pair, or the most that the settings allow."""
    most = 2 * settings.training.max_length
    return min(longest or most, most)


def _frozen(settings: Settings, shape: Shape, bytes_each: int) -> float:
    """The base. Quantization takes the layers' linear maps; embeddings, norms and head stay as they are."""
    # nf4: half a byte, and for each 64 weights a constant of 32 bits, or of 8 when these are quantized as well.
    constants = 1 / 64 + 4 / (64 * 256) if settings.model.double_quantization else 4 / 64
    each = {"none": float(bytes_each), "nf4": 0.5 + constants, "int8": 1.0}[settings.model.quantization]
    return each * shape.in_linears + bytes_each * (shape.parameters - shape.in_linears)


def kept_by_a_layer(settings: Settings, shape: Shape, kind: Kind) -> float:
    """Bytes that one token saves in one layer for the backward pass.

    Fitted to what autograd keeps of Llama, Qwen3, Gemma 2, Gemma 3, Phi-3 and OLMo 2 with the engine's own layers, in 32
    bits and in 16; for GPUs from Ampere on to Llama shapes with 1, 3 and 8 billion weights on fake CUDA tensors.
    """
    hidden, queries, keys, widened = shape.hidden, shape.queries, shape.keys, shape.intermediate
    targets = shape.targeted(settings.adapter.target_modules)
    inner = settings.adapter.rank * sum(one.count for one in targets) / shape.layers
    # Of an MLP's gated product the two factors; itself only where an adapter of 8 bits, which is PEFT's own, is handed it.
    paths = 3 if settings.model.quantization == "int8" and any(one.name == "down_proj" for one in targets) else 2
    again = 0 if shape.norms_first else 2  # what a norm gives is made anew; inputs that come from elsewhere are kept
    if is_wide(settings, kind):
        attended = 2 * (queries + keys) if shape.blockwise else 4.97 * queries + 2.48 * keys
        kept = 4 * ((0.44 + 0.92 * shape.norms + again) * hidden + attended + paths * widened + 0.99 * inner)
        kept += 5 * (queries + keys) if shape.norms_heads else 0
    else:
        # The kernel for sequences of different lengths saves neither keys and values repeated per query head nor the joined output.
        varlen = 1.48 * queries + 4.99 * keys if kind == "cuda" else 4.98 * queries + 2.49 * keys
        attended = 2 * (queries + keys) if shape.blockwise else varlen
        kept = 2 * ((0.72 + 0.92 * shape.norms + again) * hidden + attended + 1.02 * paths * widened + 1.31 * inner)
        kept += 1.2 * (queries + keys) if shape.norms_heads else 0
    if shape.blockwise:  # beside query, key, value and output, one log-sum-exp for each head
        kept += 4 * shape.heads
    if settings.adapter.dropout:  # a byte for each number of an adapter's input: whether it was dropped
        kept += sum(one.inputs * one.count for one in targets if one.name not in DROPS_WITH_ANOTHER) / shape.layers
    return kept


# --- what to change ---------------------------------------------------------------------------------------------------


def changed(settings: Settings, **changes) -> Settings:
    """The settings with changes by "section__choice"."""
    values = settings.to_form() | {name.replace("__", "."): value for name, value in changes.items()}
    return Settings.from_form(**values)


def _advice(settings: Settings, shape: Shape, free: int, kind: Kind, longest: int | None) -> str:
    """The mildest change with which the run would fit, in one sentence."""
    for words, changes in _changes(settings):
        need = needed(changed(settings, **changes), shape, free, kind, longest, least=True)
        if judged(need.total, free) == "fits":
            return f"{words}: then it needs about {size(need.total)}."
    smallest = changed(settings, model__quantization="nf4", model__offload_embeddings="auto", adapter__bias="none",
                       training__max_length=128, training__gradient_checkpointing="auto")
    least = needed(smallest, shape, free, kind, longest, least=True)
    return f"Choose a smaller model or more memory: at its smallest this one needs about {size(least.total)}."


def _changes(settings: Settings):
    """Changes from mild to grave, each with its words."""
    training = settings.training
    if training.gradient_checkpointing == "none":
        yield "Set Gradient checkpointing to auto", {"training__gradient_checkpointing": "auto"}
    if settings.model.offload_embeddings == "off":
        yield "Set Offload embeddings to auto", {"model__offload_embeddings": "auto"}
    lengths = [2**power for power in range(16, 6, -1) if 2**power < training.max_length]
    nf4 = {"model__quantization": "nf4", "adapter__bias": "none"}
    if settings.model.quantization != "nf4":
        yield "Set Quantization to 4 bits", nf4
    for length in lengths:
        yield f"Lower the maximum length to {length:,}", {"training__max_length": length}
    least = nf4 | {"training__gradient_checkpointing": "auto"}
    for length in (training.max_length, *lengths):
        yield f"Set Quantization to 4 bits and the maximum length to {length:,}", least | {"training__max_length": length}
    for length in lengths:
        yield (f"Set Offload embeddings to auto, Quantization to 4 bits and the maximum length to {length:,}",
               least | {"model__offload_embeddings": "auto", "training__max_length": length})
