"""conv2d(shift(x)) without a copy of x: the shift moves frames inside the memory of x, and moves them back after.

A residual block reads its input twice, shifted and as it was (arXiv:1811.08383, section 4.1), and autograd keeps it for
the ReLU before: so its content must be the same before and after, and nothing else may read it in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ops.network.shift_ops import (
    Moves,
    can_move,
    frame_mover,
    is_eager,
    reversed_moves,
    shift,
    split_frames,
)


class Moved:
    """`with Moved(x, ...)`: the content of `x` is shifted inside, and restored bit for bit after, errors included.

    Works on `.data`: nothing has changed when it is over, so autograd's version counter must not be bumped.
    """

    def __init__(self, x: Tensor, n_segment: int, moves: Moves):
        self.data, self.n_segment, self.moves = x.data, n_segment, moves
        self.move = frame_mover(x)

    def __enter__(self) -> None:
        self.kept = self.move(self.data, self.n_segment, self.moves, keep=True)

    def __exit__(self, *error: object) -> None:
        self.move(self.data, self.n_segment, reversed_moves(self.moves), fill=self.kept)


class _ShiftConv(torch.autograd.Function):
    """conv2d(shift(x)) that moves x within its memory and saves the original x, which autograd keeps anyway."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, n_segment: int, moves: Moves, conv_args: tuple):
        with Moved(x, n_segment, moves):
            out = F.conv2d(x, weight, bias, *conv_args)
        ctx.save_for_backward(x, weight)
        ctx.n_segment, ctx.moves, ctx.conv_args = n_segment, moves, conv_args
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.conv_args
        needed = list(ctx.needs_input_grad[:3])
        back = reversed_moves(ctx.moves)

        def gradients(source: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
            return torch.ops.aten.convolution_backward(
                grad, source, weight, ctx.bias_sizes, stride, padding, dilation, False, [0, 0], groups, needed
            )

        if torch.is_grad_enabled() or not is_eager(grad) or _same_memory(x, grad):
            # Recorded for a second derivative, or batched: operations that autograd and vmap know, and none in place.
            grads = gradients(shift(x, ctx.n_segment, ctx.moves))
            grad_x = grads[0] if grads[0] is None else shift(grads[0], ctx.n_segment, back)
            return grad_x, grads[1], grads[2], None, None, None
        if needed[1]:
            with Moved(x, ctx.n_segment, ctx.moves):
                grads = gradients(x)
        else:
            grads = gradients(x)  # Only the weights' gradient reads the content of the input.
        grad_x = grads[0]
        if grad_x is not None and can_move(grad_x):
            frame_mover(grad_x)(grad_x, ctx.n_segment, back)
        elif grad_x is not None:
            grad_x = shift(grad_x, ctx.n_segment, back)
        return grad_x, grads[1], grads[2], None, None, None


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def can_borrow(x: Tensor) -> bool:
    """Whether the content of `x` may change for a moment: only this thread's next operations can be reading it.

    Not while something traces; not memory from outside of PyTorch, which may be read-only (a memory-mapped NumPy
    array); not an inference tensor outside of inference mode, which refuses changes; not under saved-tensor hooks,
    which may be copying the same memory elsewhere at this moment (offloading).
    """
    return (
        is_eager(x)
        and can_move(x)
        and x.untyped_storage().resizable()
        and (not x.is_inference() or torch.is_inference_mode_enabled())
        and not _has_saved_tensor_hooks()
    )


def _has_saved_tensor_hooks() -> bool:
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("they are active"):
            return False
    except RuntimeError:
        return True


def is_plain_conv(net: nn.Module) -> bool:
    """Whether calling `net` does exactly one zero-padded conv2d, so that the shift can be folded into the call."""
    return (
        type(net) is nn.Conv2d
        and net.padding_mode == "zeros"
        and not isinstance(net.padding, str)
        and "forward" not in net.__dict__
        and not (net._forward_hooks or net._forward_pre_hooks or net._backward_hooks or net._backward_pre_hooks)
        and not _has_any_global_hook()
        and type(net.weight) in (Tensor, nn.Parameter)
    )


def _autocast(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cast as autocast would before a convolution; outside the autograd function, so that gradients are cast back."""
    tensors = (x, *others)
    if not torch.is_autocast_enabled(x.device.type):
        return tensors
    dtype = torch.get_autocast_dtype(x.device.type)
    return tuple(t if t is None or t.dtype is torch.float64 else t.to(dtype) for t in tensors)


def shift_conv(x: Tensor, conv: nn.Conv2d, n_segment: int, moves: Moves) -> Tensor:
    """conv(shift(x)) without a copy of x, for an `x` that `can_borrow` and a `conv` that `is_plain_conv`.

    The memory of `x` changes while this runs and is restored bit for bit before it returns, so no other thread or CUDA
    stream may read `x` in that time.
    """
    split_frames(x, n_segment)
    conv_args = (conv.stride, conv.padding, conv.dilation, conv.groups)
    x, weight, bias = _autocast(x, conv.weight, conv.bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        return _ShiftConv.apply(x, weight, bias, n_segment, moves, conv_args)
    with Moved(x, n_segment, moves):
        return F.conv2d(x, weight, bias, *conv_args)
