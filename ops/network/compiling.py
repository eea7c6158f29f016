"""What torch.compile needs from us: a shift that it does not turn into copies, and errors that a user understands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.common.errors import InputError
from ops.network.shift_ops import Moved, can_move, is_plain_conv, shift_moves, shift_traced, split_frames
from ops.temporal_shift import TemporalShift


@contextlib.contextmanager
def compile_errors(enabled: bool = True) -> Iterator[None]:
    """Turn a failure of torch.compile in the block (no C++ compiler, say) into one line; nets compile when called."""
    if not enabled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import exc

    kinds = (TorchDynamoException, getattr(exc, "InductorError", TorchDynamoException))  # the latter since torch 2.7
    try:
        yield
    except kinds as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"--compile does not work on this machine ({reason}): leave it out") from error


def hide_shifts(model: nn.Module) -> int:
    """Replace, in place, every TemporalShift around a plain convolution by one that torch.compile does not look into.

    Traced, the shift is a copy of its input, which costs a ResNet-50 on a CPU a third of its time. As an operator of
    its own it moves frames inside the input's memory and restores them, as it does when nothing is compiled. Only for
    inference on CPUs: the operator has no gradient, and on CUDA a copy is cheap and fuses with what made the input.

    Returns:
        The number of shifts hidden.
    """
    count = 0
    for name, module in list(model.named_modules()):
        if type(module) is TemporalShift and is_plain_conv(module.net):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _HiddenShift(module))
            count += 1
    return count


class _HiddenShift(nn.Module):
    """A TemporalShift as one operator."""

    def __init__(self, shift: TemporalShift) -> None:
        super().__init__()
        self.net = shift.net
        self.n_segment, self.fold_div, self.online = shift.n_segment, shift.fold_div, shift.online

    def forward(self, x: Tensor) -> Tensor:
        conv = self.net
        sizes = [*conv.stride, *conv.padding, *conv.dilation, conv.groups]
        return _shift_conv(x, conv.weight, conv.bias, self.n_segment, self.fold_div, self.online, sizes)


_SCHEMA = "(Tensor x, Tensor weight, Tensor? bias, int n_segment, int n_div, bool online, int[] sizes) -> Tensor"


@torch.library.custom_op("tsm::shift_conv", mutates_args=(), schema=_SCHEMA)  # it restores what it changes
def _shift_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, n_segment: int, n_div: int, online: bool, sizes: list[int]
) -> Tensor:
    """conv2d(shift(x)). `sizes`: stride, padding and dilation (two each), groups."""
    moves = shift_moves(x.shape[1], n_div, online=online)
    if not moves or not can_move(x):
        return _conv(shift_traced(x, n_segment, moves) if moves else x, weight, bias, sizes)
    with Moved(x, n_segment, moves):
        return _conv(x, weight, bias, sizes)


@_shift_conv.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, n_segment: int, n_div: int, online: bool, sizes: list[int]
) -> Tensor:
    """Shape and strides only."""
    split_frames(x, n_segment)
    return _conv(x, weight, bias, sizes)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> Tensor:
    return F.conv2d(x, weight, bias, sizes[:2], sizes[2:4], sizes[4:6], sizes[6])
