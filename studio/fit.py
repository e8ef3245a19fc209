"""Will a run fit: the peak of its memory by arithmetic, part by part, and what to change if it does not.

Fitted to what autograd keeps of tiny models and to the peaks of real runs; the tests hold it to within 15 % of both.
A measurement (`studio.two_steps`) is better than any of this.
"""

from dataclasses import dataclass, fields
from typing import Literal

from studio.installed import torch_build
from studio.settings import Settings
from studio.shape import Shape
from studio.summary import size

TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}
"""Tokens that the trainer sends through the model in one pass at most, unless a single pair is longer."""

ENOUGH = {"cpu": 1024, "cuda": 4096}
"""Tokens to which the trainer makes its passes smaller before it recomputes layers, unless a single pair is longer."""

USABLE = 0.8
"""Share of the free memory that the trainer lets a pass take before it recomputes layers."""

TILE_BYTES = {"cpu": 8 * 1024**2, "cuda": 64 * 1024**2}
"""The float32 logits that are held at one time."""

LIBRARIES = {"cpu": 500 * 2**20, "cuda": 700 * 2**20}
"""A worker before it has loaded a model: torch and the rest in RAM; on a card its context and the kernels' workspace."""

BUILT_FOR_CARDS = 350 * 2**20
"""What a torch that was built for cards takes more in RAM where it computes on the CPU. After the same imports 2.11.0+cu130 held
698 MB and 2.13.0+cpu 298 MB; at the peak of a practice run they were 332 MB apart."""

FRAGMENTS = {"cpu": 4, "cuda": 2}
"""Layers' worth of freed memory that the allocator does not hand out again. Measured on a CPU, assumed on a card."""

OPTIMIZER_BYTES = {"adamw_torch": 8, "paged_adamw_32bit": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0.1}
"""State for each trained weight."""

DROPS_WITH_ANOTHER = {"k_proj", "v_proj", "up_proj"}
"""Layers whose adapters have the same numbers of their input dropped as those of q_proj and gate_proj."""

MARGIN = 1.15
"""An estimate is this good; what fits with less room to spare is called tight."""

Kind = Literal["cpu", "cuda", "cuda before Ampere"]
"""What a run computes on. From Ampere on (compute capability 8.0) one kernel takes all stretches of a packed row as they are."""
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
    """A need against the free memory; `advice` is one sentence, empty for what fits."""

    need: Need
    free: int
    verdict: Verdict
    advice: str = ""


def fit(settings: Settings, shape: Shape, free: int, kind: Kind, longest: int | None = None) -> Fit:
    """Whether a run fits into `free` bytes. `longest` is the longest pair in tokens, where it is known.

    A run takes larger passes and recomputes less where there is room: it fits where the least that it can do with does.
    """
    planned, least = (needed(settings, shape, free, kind, longest, least=wanted) for wanted in (False, True))
    verdict = judged(least.total, free)
    advice = "" if verdict == "fits" else _advice(settings, shape, free, kind, longest)
    return Fit(planned if planned.total <= free else least, free, verdict, advice)


def judged(total: float, free: int) -> Verdict:
    """The word for a need against the free memory."""
    return "fits" if total * MARGIN <= free else "tight" if total <= free else "too large"


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
    """The peak of a run's memory, as it is planned for so much `free` memory, or the `least` that it can do with.

    Without `longest` every pair is taken to be as long as the settings allow.
    """
    bytes_each = 4 if is_wide(settings, kind) else 2
    trained = _trained(settings, shape)
    model, adapter = _frozen(settings, shape, bytes_each), 8.0 * trained
    optimizer = OPTIMIZER_BYTES[settings.training.optimizer] * trained
    tokens = tokens_at_once(settings, kind, longest)
    libraries = LIBRARIES[_device(kind)] + (BUILT_FOR_CARDS if kind == "cpu" and (torch_build().cuda or torch_build().hip) else 0)
    room = 0.0 if least else USABLE * (free - model - adapter - libraries)
    each, entry = kept_by_a_layer(settings, shape, kind, longest), shape.hidden * bytes_each
    tokens, recomputed = _planned(settings, shape, kind, tokens, longest, each, entry, room)
    activations = tokens * _kept(shape, kind, each, entry, recomputed)
    # A tile of logits, and the hidden states that are scored with their slopes.
    head = 1.5 * min(TILE_BYTES[_device(kind)], 4 * tokens * shape.vocabulary) + 2 * tokens * shape.hidden * bytes_each
    running = model + adapter + optimizer + activations + head
    # On a CPU the file is mapped while its numbers are turned into the run's; a card reads it piece by piece.
    reading = model + shape.stored if kind == "cpu" and settings.model.quantization == "none" else 0.0
    return Need(model, adapter, optimizer, activations, head, libraries, max(0.0, reading - running))


def _device(kind: Kind) -> Literal["cpu", "cuda"]:
    return "cpu" if kind == "cpu" else "cuda"


def is_wide(settings: Settings, kind: Kind) -> bool:
    """Whether the arithmetic is in 32 bits."""
    return settings.model.compute_dtype == "float32" or (settings.model.compute_dtype == "auto" and kind == "cpu")


def tokens_at_once(settings: Settings, kind: Kind, longest: int | None = None) -> int:
    """Tokens of one pass, as the trainer divides a step where memory is plenty."""
    longest, training = longest_of(settings, longest), settings.training
    return max(longest, min(training.batch_size * training.accumulation * longest, TOKENS_AT_ONCE[_device(kind)]))


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


def kept_by_a_layer(settings: Settings, shape: Shape, kind: Kind, longest: int | None = None) -> float:
    """Bytes that one token leaves behind in one layer for the way back.

    Fitted to what autograd keeps of Llama, Qwen3, Gemma 2, Gemma 3, Phi-3 and OLMo 2 with the engine's own layers, in 32
    bits and in 16; from Ampere on to what it keeps of Llamas of 1, 3 and 8 billion weights, on tensors that only say they are on a card.
    """
    hidden, queries, keys, widened = shape.hidden, shape.queries, shape.keys, shape.intermediate
    targets = shape.targeted(settings.adapter.target_modules)
    inner = settings.adapter.rank * sum(one.count for one in targets) / shape.layers
    # Of an MLP's gated product the two factors; itself only where an adapter of 8 bits, which is PEFT's own, is handed it.
    paths = 3 if settings.model.quantization == "int8" and any(one.name == "down_proj" for one in targets) else 2
    again = 0 if shape.norms_first else 2  # what a norm gives is made anew; inputs that come from elsewhere are kept
    if is_wide(settings, kind):
        kept = 4 * ((0.44 + 0.92 * shape.norms + again) * hidden + 4.97 * queries + 2.48 * keys + paths * widened + 0.99 * inner)
        kept += 5 * (queries + keys) if shape.norms_heads else 0
    else:
        # Handed stretches of different lengths, a kernel keeps neither each head of keys for its queries nor their rows put together.
        attended = 1.48 * queries + 4.99 * keys if kind == "cuda" and not shape.caps_scores else 4.98 * queries + 2.49 * keys
        kept = 2 * ((0.72 + 0.92 * shape.norms + again) * hidden + attended + 1.02 * paths * widened + 1.31 * inner)
        kept += 1.2 * (queries + keys) if shape.norms_heads else 0
    if shape.caps_scores:  # attention is spelled out, so that every token keeps its scores over all others
        kept += 8 * shape.heads * (longest or 2 * settings.training.max_length) / 2
    if settings.adapter.dropout:  # a byte for each number of an adapter's input: whether it was dropped
        kept += sum(one.inputs * one.count for one in targets if one.name not in DROPS_WITH_ANOTHER) / shape.layers
    return kept


def _planned(settings: Settings, shape: Shape, kind: Kind, tokens: int, longest: int | None, each: float, entry: float,
             room: float) -> tuple[int, int]:
    """Tokens of a pass and how many layers are recomputed, as `studio.engine.orpo.memory` plans them in so much `room`."""
    most = shape.layers - 1
    settled = {"auto": None, "full": most, "none": 0}[settings.training.gradient_checkpointing]
    enough = max(longest_of(settings, longest), min(tokens, ENOUGH[_device(kind)]))
    while tokens > enough and tokens * _kept(shape, kind, each, entry, settled or 0) > room:
        tokens = max(enough, tokens // 2)
    recomputed = settled
    if recomputed is None:
        recomputed = next((count for count in range(most) if tokens * _kept(shape, kind, each, entry, count) <= room), most)
    least = enough if kind == "cpu" else longest_of(settings, longest)
    while tokens > least and tokens * _kept(shape, kind, each, entry, recomputed) > room:
        tokens = max(least, tokens // 2)
    return tokens, recomputed


def _kept(shape: Shape, kind: Kind, each: float, entry: float, recomputed: int) -> float:
    """Bytes that a token leaves behind in all layers, with the first of them recomputed, fragments included."""
    return each * (max(1, shape.layers - recomputed) + min(FRAGMENTS[_device(kind)], shape.layers)) + recomputed * entry


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
    least = needed(changed(settings, model__quantization="nf4", training__max_length=128, adapter__bias="none",
                           training__gradient_checkpointing="auto"), shape, free, kind, longest, least=True)
    return f"Choose a smaller model or more memory: at its smallest this one needs about {size(least.total)}."


def _changes(settings: Settings):
    """Changes from mild to grave, each with its words."""
    training = settings.training
    if training.gradient_checkpointing == "none":
        yield "Set Gradient checkpointing to auto", {"training__gradient_checkpointing": "auto"}
    lengths = [2**power for power in range(16, 6, -1) if 2**power < training.max_length]
    nf4 = {"model__quantization": "nf4", "adapter__bias": "none"}
    if settings.model.quantization != "nf4":
        yield "Set Quantization to 4 bits", nf4
    for length in lengths:
        yield f"Lower the maximum length to {length:,}", {"training__max_length": length}
    least = nf4 | {"training__gradient_checkpointing": "auto"}
    for length in (training.max_length, *lengths):
        yield f"Set Quantization to 4 bits and the maximum length to {length:,}", least | {"training__max_length": length}
