"""The shift as tensor functions: every form against a plain loop."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from ops.common.errors import InputError
from ops.network.shift_ops import move_frames_, reversed_moves, shift_moves, shift_traced
from ops.temporal_shift import TemporalShift

FORMATS = (torch.contiguous_format, torch.channels_last)


def loop_shift(x: Tensor, n_segment: int, fold_div: int, online: bool = False) -> Tensor:
    """The rule of arXiv:1811.08383, section 4, one channel of one frame at a time."""
    out = torch.zeros_like(x)
    fold = x.shape[1] // fold_div
    for frame, channel in itertools.product(range(x.shape[0]), range(x.shape[1])):
        t = frame % n_segment
        if channel < fold:
            step = -1 if online else 1
        elif channel < 2 * fold and not online:
            step = -1
        else:
            step = 0
        if 0 <= t + step < n_segment:
            out[frame, channel] = x[frame + step, channel]
    return out


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.detach().contiguous().view(torch.int32), b.detach().contiguous().view(torch.int32))


def make_input(shape: tuple[int, ...], memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)
    if x.numel():  # values that a sloppy copy (an addition, a mask) would change
        x[0, 0, 0, 0], x[-1, -1, 0, 0] = float("nan"), -0.0
    return x


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("online", (False, True))
@pytest.mark.parametrize(
    ("shape", "n_segment", "fold_div"),
    [
        ((8, 16, 3, 2), 4, 8),
        ((8, 16, 3, 2), 8, 4),
        ((6, 9, 2, 2), 3, 4),  # a remainder of channels
        ((3, 4, 2, 2), 3, 1),  # everything takes t + 1, nothing is left for t - 1
        ((4, 8, 2, 2), 1, 8),  # one frame a clip: only zeros come in
        ((4, 4, 2, 2), 2, 8),  # fold 0
        ((0, 8, 2, 2), 2, 8),  # no clip
        ((4, 16, 150, 120), 4, 8),  # large enough to be moved in parts
    ],
)
def test_every_form_follows_the_rule(shape, n_segment, fold_div, online, memory_format) -> None:
    x = make_input(shape, memory_format)
    expected = loop_shift(x, n_segment, fold_div, online)
    before = x.clone()
    plain = TemporalShift.shift(x, n_segment, fold_div=fold_div, online=online)
    assert same_bits(plain, expected)
    assert same_bits(x, before)
    assert plain.stride() == x.stride()
    moves = shift_moves(shape[1], fold_div, online=online)
    if moves:
        assert same_bits(shift_traced(x, n_segment, moves), expected)
        kept = move_frames_(x, n_segment, moves, keep=True)
        assert same_bits(x, expected)
        move_frames_(x, n_segment, reversed_moves(moves), fill=kept)
        assert same_bits(x, before)
    inplace = TemporalShift.shift(x, n_segment, fold_div=fold_div, inplace=True, online=online)
    assert inplace.data_ptr() == x.data_ptr()
    assert same_bits(x, expected)


def test_the_published_default_divisor_is_3() -> None:
    x = make_input((4, 6, 2, 2))
    assert same_bits(TemporalShift.shift(x, 4), loop_shift(x, 4, 3))


def test_strided_and_expanded_inputs() -> None:
    base = torch.randn(8, 32, 4, 4)
    sliced, expanded = base[:, ::2, 1:], torch.randn(1, 16, 4, 4).expand(8, -1, -1, -1)
    for x in (sliced, expanded):
        assert torch.equal(TemporalShift.shift(x, 4, 8), loop_shift(x, 4, 8))
    expected = loop_shift(sliced, 4, 8)
    assert torch.equal(TemporalShift.shift(sliced, 4, 8, inplace=True), expected)


@pytest.mark.parametrize("inplace", (False, True))
def test_gradients_of_the_shift_alone(inplace: bool) -> None:
    x = torch.randn(6, 8, 2, 1, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        return TemporalShift.shift(x * 1, 3, fold_div=4, inplace=inplace)

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_in_place_alone_tells_autograd_that_it_changed_its_input() -> None:
    x = torch.randn(4, 8, 2, 2, requires_grad=True)
    activation = x.sigmoid()  # sigmoid's backward reads its own output
    TemporalShift.shift(activation, 4, 8, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        activation.sum().backward()
    with pytest.raises(InputError, match="leaf"):
        TemporalShift.shift(x, 4, 8, inplace=True)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="10 frames does not divide into clips of 4"):
        TemporalShift.shift(torch.zeros(10, 8, 1, 1), 4, 8)
    with pytest.raises(InputError, match="10 frames does not divide into clips of 4"):
        TemporalShift(nn.Conv2d(8, 8, 1), 4)(torch.zeros(10, 8, 1, 1))
    for n_segment, fold_div in ((0, 8), (4, 0)):
        with pytest.raises(InputError, match="1 or more"):
            TemporalShift(nn.Identity(), n_segment, fold_div)
    with pytest.raises(InputError, match="shape"):
        TemporalShift.shift(torch.zeros(8), 4, 8)
