"""The embedding matrix and the LM head in RAM instead of on the card, for the same result.

The embedding only looks rows up: they are gathered in RAM and sent. The head is computed a tile of words at a time: each tile is copied
to the device before it is multiplied, on a card by a stream of its own while the tile before it is at work. A matrix in RAM is no
parameter of its layer any more, so that `model.device` is that of the other weights and `model.to` leaves the matrix where it is.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import cuda, nn
from torch.nn import functional
from transformers import PreTrainedModel

from studio.engine.orpo import packing, relief
from studio.errors import StudioError
from studio.summary import size

TILE_WORDS = 8192
"""Most words of the head that are computed at one time: a card holds two tiles of a head that is in RAM."""

Tiles = Iterator[tuple[slice, torch.Tensor]]
"""The words of each tile, and their rows of the matrix, valid until the next tile is asked for."""


class InRam:
    """A matrix (words, width) in RAM, in pinned memory if it comes from a card and the system has enough of that."""

    def __init__(self, weight: torch.Tensor):
        self.weight = _pinned(weight.detach()) if weight.is_cuda else weight.detach()

    def __len__(self) -> int:
        return len(self.weight)

    def rows(self, words: torch.Tensor) -> torch.Tensor:
        """The rows of these words, (words, width), on the words' device, which is waited for."""
        return packing.sent(self.weight[words.cpu()], words.device)

    def tiles(self, parts: Sequence[slice], device: torch.device) -> Tiles:
        """The matrix in these parts on a device."""
        return _copied_ahead(self.weight, parts, device) if device.type == "cuda" else _copied(self.weight, parts, device)


def _pinned(weight: torch.Tensor) -> torch.Tensor:
    """A copy in RAM from which a card reads by itself, or an ordinary one where no more memory can be pinned: slower, but correct."""
    try:
        copy = torch.empty_like(weight, device="cpu", pin_memory=True)
    except RuntimeError:
        copy = torch.empty_like(weight, device="cpu")
    return copy.copy_(weight)


def _buffer(weight: torch.Tensor, parts: Sequence[slice], device: torch.device) -> torch.Tensor:
    return torch.empty(max(part.stop - part.start for part in parts), weight.shape[1], dtype=weight.dtype, device=device)


def _copied(weight: torch.Tensor, parts: Sequence[slice], device: torch.device) -> Tiles:
    """The tiles one after the other, in one buffer."""
    buffer = _buffer(weight, parts, device)
    for part in parts:
        yield part, buffer[: part.stop - part.start].copy_(weight[part])


def _copied_ahead(weight: torch.Tensor, parts: Sequence[slice], device: torch.device) -> Tiles:
    """The tiles by turns in two buffers on a card: while one is computed with, the copy stream fills the other."""
    computing, copying = cuda.current_stream(device), _copy_stream(device)
    buffers = [_buffer(weight, parts, device) for _ in range(2)]
    filled, used = [cuda.Event() for _ in buffers], [cuda.Event() for _ in buffers]

    def fill(turn: int) -> None:
        part, slot = parts[turn], turn % 2
        with cuda.stream(copying):
            if turn >= 2:
                copying.wait_event(used[slot])
            buffers[slot][: part.stop - part.start].copy_(weight[part], non_blocking=True)
            filled[slot].record(copying)

    copying.wait_stream(computing)  # kernels that are still queued may read what the buffers' memory held before
    try:
        fill(0)
        for turn, part in enumerate(parts):
            if turn + 1 < len(parts):
                fill(turn + 1)
            computing.wait_event(filled[turn % 2])
            yield part, buffers[turn % 2][: part.stop - part.start]
            used[turn % 2].record(computing)
    finally:
        computing.wait_stream(copying)  # a copy that nobody waited for must not write into memory that is given away


@cache
def _copy_stream(device: torch.device) -> cuda.Stream:
    return cuda.Stream(device)


# --- layers whose matrix is in RAM --------------------------------------------------------------------------------------


class _Projection(torch.autograd.Function):
    """x W^T for a frozen W in RAM: x (..., width) -> (..., words), in x's type. The gradient by x is summed up in float32."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, matrix: InRam) -> torch.Tensor:
        ctx.matrix, ctx.dtype = matrix, x.dtype
        made = x.new_empty(*x.shape[:-1], len(matrix))
        for part, tile in matrix.tiles(_parts(matrix), x.device):
            made[..., part] = functional.linear(x, tile.to(x.dtype))
        return made

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        total = torch.zeros(*upstream.shape[:-1], ctx.matrix.weight.shape[1], dtype=torch.float32, device=upstream.device)
        for part, tile in ctx.matrix.tiles(_parts(ctx.matrix), upstream.device):
            total += upstream[..., part] @ tile.to(upstream.dtype)
        return total.to(ctx.dtype), None


def _parts(matrix: InRam) -> list[slice]:
    return [slice(start, min(start + TILE_WORDS, len(matrix))) for start in range(0, len(matrix), TILE_WORDS)]


def _look_up(layer: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """The layer's own forward pass in RAM, sent to where the ids are."""
    return packing.sent(type(layer).forward(layer, ids.cpu()), ids.device)


def _project(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    kind = x.device.type
    made = _Projection.apply(x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x, layer.in_ram)
    return made if layer.bias is None else made + layer.bias.to(made.dtype)


def is_possible(causal: PreTrainedModel) -> bool:
    """Whether a model computes on a card, so that RAM is another memory."""
    return causal.device.type == "cuda"


def why_not(causal: PreTrainedModel) -> str:
    """Why a model's embedding and head must stay where they are, as the end of a sentence; empty if they can be in RAM."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    if any(isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper) for layer in (embedding, head)):
        return "an adapter is trained on them"
    if not isinstance(embedding, nn.Embedding) or type(head) is not nn.Linear:
        return "this model computes them in its own way"
    return "they are trained" if embedding.weight.requires_grad or head.weight.requires_grad else ""


def to_ram(causal: PreTrainedModel) -> None:
    """Keep the embedding matrix and the head of a model in RAM from now on; tied ones are one matrix there as well.

    Raises StudioError where that cannot be.
    """
    if reason := why_not(causal):
        raise StudioError(f"Embeddings and head cannot be kept in RAM, because {reason}. Set Offload embeddings to off.")
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    matrix = InRam(embedding.weight)
    _move(head, matrix if head.weight is embedding.weight else InRam(head.weight), _project)
    _move(embedding, matrix, _look_up)
    for name, buffer in list(embedding.named_buffers(recurse=False)):  # such as Gemma 3's scale, which follows the rows
        delattr(embedding, name)
        setattr(embedding, name, buffer.cpu())
    relief.release()


def _move(layer: nn.Module, matrix: InRam, forward: Callable[..., torch.Tensor]) -> None:
    del layer.weight
    layer.weight, layer.in_ram, layer.forward = matrix.weight, matrix, partial(forward, layer)


def in_ram(layer: nn.Module) -> InRam | None:
    """The matrix of a layer whose matrix is in RAM."""
    return getattr(layer, "in_ram", None)


def _matrices(causal: PreTrainedModel) -> set[InRam]:
    return {in_ram(layer) for layer in (causal.get_input_embeddings(), causal.get_output_embeddings())} - {None}


def bytes_in_ram(causal: PreTrainedModel) -> int:
    """The size of the matrices of a model that are in RAM; 0 if none is."""
    return sum(matrix.weight.nbytes for matrix in _matrices(causal))


def in_words(causal: PreTrainedModel) -> str:
    """One sentence for the log of a run; empty if no matrix is in RAM."""
    if not (taken := bytes_in_ram(causal)):
        return ""
    where = "pinned RAM" if all(matrix.weight.is_pinned() for matrix in _matrices(causal)) else "RAM that cannot be pinned"
    return f"The embedding matrix and the head ({size(taken)}) stay in {where} and are copied to the card as they are needed."


def named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight of a model by name, those in RAM included, in the order of `named_parameters`; a tied one once."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        matrix = in_ram(module)
        own = [("weight", matrix.weight)] if matrix else []
        for name, weight in (*own, *module.named_parameters(recurse=False)):
            if id(weight) not in seen:
                seen.add(id(weight))
                yield f"{path}.{name}" if path else name, weight
