"""The temporal shift as tensor functions: out of place, and in place (`shift_conv.py`: in place around a convolution).

Sources: TSM (arXiv:1811.08383), sections 3-4. The shift moves channel slices between neighbouring frames and computes
nothing; everything here is about moving as few bytes as possible and restoring them exactly.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ops.common.errors import InputError

# (first channel, last channel + 1, step): frame t takes these channels from frame t + step, step being 1 or -1.
Moves = tuple[tuple[int, int, int], ...]
MoveFrames = Callable[..., list[Tensor] | None]

logger = logging.getLogger(__name__)


def shift_moves(num_channels: int, fold_div: int, *, online: bool = False) -> Moves:
    """Which channels move which way (C=64, fold_div=8 -> ((0, 8, 1), (8, 16, -1)); online -> ((0, 8, -1),))."""
    fold = num_channels // fold_div
    if fold == 0:
        return ()
    if online:
        return ((0, fold, -1),)
    moves = ((0, fold, 1), (fold, min(2 * fold, num_channels), -1))
    return tuple(move for move in moves if move[0] < move[1])


def reversed_moves(moves: Moves) -> Moves:
    """The opposite directions: what un-shifts the gradient (the shift's transpose), zeros coming in at the ends."""
    return tuple((first, last, -step) for first, last, step in moves)


def split_frames(x: Tensor, n_segment: int) -> Tensor:
    """View (N*T, C, ...) as (N, T, C, ...), for any strides."""
    if x.shape[0] % n_segment:
        raise InputError(
            f"a batch of {x.shape[0]} frames does not divide into clips of {n_segment} segments: "
            f"the first dimension must be clips * {n_segment}"
        )
    return x.view(x.shape[0] // n_segment, n_segment, *x.shape[1:])


def shift_traced(x: Tensor, n_segment: int, moves: Moves) -> Tensor:
    """Out of place with slices and concatenations only, the form that compilers and exporters take in whole."""
    frames = split_frames(x, n_segment)
    parts = []
    for first, last, step in moves:
        part = frames[:, :, first:last]
        zeros = torch.zeros_like(part[:, :1])
        parts.append(torch.cat((part[:, 1:], zeros) if step > 0 else (zeros, part[:, :-1]), dim=1))
    parts.append(frames[:, :, moves[-1][1] :])
    return torch.cat(parts, dim=2).view(x.shape)


class _ShiftCopy(torch.autograd.Function):
    """Out of place in eager mode: every element of the output is written once, the memory format is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, n_segment: int, moves: Moves) -> Tensor:
        ctx.n_segment, ctx.moves = n_segment, moves
        out = torch.empty_like(x)
        source, target = split_frames(x, n_segment), split_frames(out, n_segment)
        for first, last, step in moves:
            part, moved = source[:, :, first:last], target[:, :, first:last]
            if step > 0:
                moved[:, :-1] = part[:, 1:]
                moved[:, -1] = 0
            else:
                moved[:, 1:] = part[:, :-1]
                moved[:, 0] = 0
        still = moves[-1][1]
        target[:, :, still:] = source[:, :, still:]
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return shift(grad, ctx.n_segment, reversed_moves(ctx.moves)), None, None


class _ShiftInPlace(torch.autograd.Function):
    """An in-place operation in autograd's own terms: it changes its input and says so (version counter)."""

    @staticmethod
    def forward(ctx, x: Tensor, n_segment: int, moves: Moves) -> Tensor:
        ctx.n_segment, ctx.moves = n_segment, moves
        frame_mover(x)(x, n_segment, moves)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        # Autograd may give the same tensor to others as their gradient: it must not be changed in place.
        return shift(grad, ctx.n_segment, reversed_moves(ctx.moves)), None, None


def move_frames_(
    x: Tensor, n_segment: int, moves: Moves, *, fill: list[Tensor] | None = None, keep: bool = False
) -> list[Tensor] | None:
    """Move channel slices between frames inside the memory of `x`, one frame at a time, so no buffer is needed.

    Args:
        x: (N*T, C, H, W), any strides without overlap; changed.
        fill: what comes in at the frame without a neighbour; zeros by default.
        keep: return the slices that fall out at the other end (1/T of what moves), in the form that `fill` takes.

    `moves` with keep=True, then `reversed_moves(moves)` with fill=the kept slices, restores `x` bit for bit.
    """
    frames = split_frames(x, n_segment)
    # Frame t takes t + 1: start at the beginning, so that every slice is read before it is written. t - 1: at the end.
    slices = [frames[:, :, first:last].unbind(1)[::step] for first, last, step in moves]
    kept = [order[0].clone() for order in slices] if keep else None
    targets = [target for order in slices for target in order[:-1]]
    sources = [source for order in slices for source in order[1:]]
    if fill is not None:
        targets += [order[-1] for order in slices]
        sources += fill
    if x.device.type == "cpu" and targets:  # the loop below, but in C++: dozens of copies of a few microseconds each
        torch._foreach_copy_(targets, sources)
    else:  # elsewhere it may be one kernel, which keeps no order
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)
    if fill is None:
        for order in slices:
            order[-1].zero_()
    return kept


@functools.cache
def _cuda_move(device_index: int) -> MoveFrames | None:
    """The one-launch form of `move_frames_`, if Triton works on this device: tried once, on a small tensor."""
    try:
        from ops.network import shift_triton

        small = torch.arange(4.0, device=f"cuda:{device_index}").view(4, 1, 1, 1)
        shift_triton.move_frames_(small, 4, ((0, 1, 1),))
        if small.flatten().tolist() == [1, 2, 3, 0]:
            return shift_triton.move_frames_
        reason = f"a wrong result, {small.flatten().tolist()}"
    except Exception as error:  # No Triton, no compiler for its launcher, an unknown device: all mean the plain copies.
        reason = str(error)
    logger.warning("the temporal shift on cuda:%d copies frame by frame: Triton gave %s", device_index, reason)
    return None


def frame_mover(x: Tensor) -> MoveFrames:
    """`move_frames_`, or its faster form for the device that `x` is on."""
    if x.is_cuda and x.element_size() <= 8 and can_move(x):
        return _cuda_move(x.device.index) or move_frames_
    return move_frames_


def can_move(x: Tensor) -> bool:
    """Whether frames can move inside the memory of `x`: on the CPU or CUDA, contiguous or channels_last."""
    return (
        x.layout is torch.strided
        and x.device.type in ("cpu", "cuda")
        and x.dim() == 4
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
    )


def is_eager(x: Tensor) -> bool:
    """Whether operations on `x` run at once, and nothing traces, transforms, batches or replaces them."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)  # is_grads_batched, jacobian(vectorize=True)
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
    )


def shift(x: Tensor, n_segment: int, moves: Moves, *, inplace: bool = False) -> Tensor:
    """Shift (N*T, C, ...) along time; in place where asked and where nothing traces."""
    if not moves:
        return x
    if not is_eager(x):
        return shift_traced(x, n_segment, moves)
    if not inplace:
        return _ShiftCopy.apply(x, n_segment, moves)
    if x.requires_grad and x.is_leaf and torch.is_grad_enabled():
        raise InputError("a leaf tensor that requires a gradient cannot be shifted in place: use inplace=False")
    return _ShiftInPlace.apply(x, n_segment, moves)
