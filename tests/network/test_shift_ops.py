"""The shift as tensor functions: every form against a plain loop, and the in-place form against the plain one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ops.common.errors import InputError
from ops.network import shift_ops
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


CONVS = {
    "1x1": lambda: nn.Conv2d(16, 12, 1, bias=False),
    "3x3 with bias": lambda: nn.Conv2d(16, 12, 3, padding=1),
    "strided": lambda: nn.Conv2d(16, 12, 3, stride=2, padding=1, bias=False),
    "dilated, grouped": lambda: nn.Conv2d(16, 8, (3, 1), padding=(2, 0), dilation=(2, 1), groups=4),
}


def run_conv(conv: nn.Conv2d, x: Tensor, *, inplace: bool, n_segment: int = 4, online: bool = False) -> list[Tensor]:
    """Output, gradients of input, weight and bias, where `x` also takes a shortcut, as in a residual block."""
    conv.zero_grad()
    leaf = x.clone().requires_grad_()
    activation = leaf.relu()  # its backward reads its output, which is the shifted tensor
    before, version = activation.detach().clone(), activation._version
    out = TemporalShift(conv, n_segment, 8, inplace, online=online)(activation)
    assert same_bits(activation, before)
    assert activation._version == version
    (out.square().sum() + activation.square().sum()).backward()
    assert same_bits(activation, before)
    assert activation._version == version
    return [out, leaf.grad, *(parameter.grad for parameter in conv.parameters())]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", CONVS)
def test_in_place_convolution_equals_plain_exactly(name: str, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = CONVS[name]().to(memory_format=memory_format)
    for n_segment, online, clips in ((4, False, 2), (4, True, 2), (1, False, 3), (4, False, 0)):
        x = torch.randn(clips * n_segment, 16, 6, 5).to(memory_format=memory_format)
        plain = run_conv(conv, x, inplace=False, n_segment=n_segment, online=online)
        inside = run_conv(conv, x, inplace=True, n_segment=n_segment, online=online)
        oracle = conv(loop_shift(x.relu(), n_segment, 8, online))
        for a, b in zip(plain, inside, strict=True):
            assert torch.equal(a, b)
        assert torch.equal(inside[0], oracle)


def in_place_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses of the tensors that the in-place form convolves."""
    addresses: list[int] = []
    conv2d = F.conv2d

    def recording(x: Tensor, *args: object) -> Tensor:
        addresses.append(x.data_ptr())
        return conv2d(x, *args)

    monkeypatch.setattr(shift_ops.F, "conv2d", recording)
    return addresses


@pytest.mark.parametrize("mode", (torch.no_grad, torch.inference_mode))
def test_inference_convolves_the_input_itself(mode: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(16, 4, 1)
    x = torch.randn(8, 16, 3, 3)
    expected, before = conv(loop_shift(x, 4, 8)), x.clone()
    addresses = in_place_calls(monkeypatch)
    with mode():
        for activation in (x, x.clone()):  # made outside of the mode, and inside
            assert torch.equal(TemporalShift(conv, 4)(activation), expected)
            assert same_bits(activation, before)
            assert addresses.pop() == activation.data_ptr()
    assert x._version == 0


def test_frozen_weights_and_inputs_without_gradient() -> None:
    x = torch.randn(8, 16, 3, 3)
    for train_input, train_weight in itertools.product((False, True), repeat=2):
        grads = []
        for inplace in (False, True):
            torch.manual_seed(0)
            conv = nn.Conv2d(16, 4, 3, padding=1)
            conv.weight.requires_grad_(train_weight)
            leaf = x.clone().requires_grad_(train_input)
            TemporalShift(conv, 4, 8, inplace)(leaf).square().sum().backward()
            assert same_bits(leaf, x)
            assert (leaf.grad is not None) == train_input
            assert (conv.weight.grad is not None) == train_weight
            grads.append([g for g in (leaf.grad, conv.weight.grad, conv.bias.grad) if g is not None])
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_an_error_inside_the_convolution_leaves_the_input_restored() -> None:
    x = make_input((8, 16, 3, 3))
    before = x.clone()
    shifted = TemporalShift(nn.Conv2d(8, 4, 1), 4)
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(RuntimeError, match="channels"):
            shifted(x)
        assert same_bits(x, before)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_autocast_equals_plain_exactly(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 8, 3, padding=1)
    x = torch.randn(8, 16, 5, 5).to(dtype)
    runs = []
    for inplace in (False, True):
        conv.zero_grad()
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = TemporalShift(conv, 4, 8, inplace)(leaf)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
        assert torch.equal(leaf, x)
        runs.append([out, leaf.grad, conv.weight.grad, conv.bias.grad])
    assert runs[1][1].dtype == dtype
    assert runs[1][2].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("reentrant", (False, True))
def test_gradient_checkpointing(reentrant: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 8, 3, padding=1)
    shifted = TemporalShift(conv, 4)
    x = torch.randn(8, 16, 5, 5, requires_grad=True)
    direct = torch.autograd.grad(shifted(x).square().sum(), [x, *conv.parameters()])
    shifted.zero_grad()
    checkpoint(shifted, x, use_reentrant=reentrant).square().sum().backward()
    for a, b in zip(direct, [x.grad, conv.weight.grad, conv.bias.grad], strict=True):
        assert torch.equal(a, b)


def test_backward_reads_what_saved_tensor_hooks_give_back() -> None:
    conv = nn.Conv2d(16, 8, 1)
    x = torch.randn(8, 16, 5, 5, requires_grad=True)
    expected = torch.autograd.grad(TemporalShift(conv, 4, 8, False)(x).sum(), conv.weight)[0]
    for unpack in (torch.clone, lambda t: torch.stack((t, t), -1)[..., 0]):  # dense, and not dense
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, unpack):
            out = TemporalShift(conv, 4)(x)
        torch.testing.assert_close(torch.autograd.grad(out.sum(), conv.weight)[0], expected)


def test_a_gradient_that_is_the_input_itself() -> None:
    conv = nn.Conv2d(16, 16, 1)
    x = torch.randn(8, 16, 5, 5, requires_grad=True)
    before = x.detach().clone()
    expected = torch.autograd.grad(TemporalShift(conv, 4, 8, False)(x), conv.weight, before)[0]
    out = TemporalShift(conv, 4)(x)
    assert torch.equal(torch.autograd.grad(out, conv.weight, x.detach())[0], expected)
    assert torch.equal(x, before)


def test_an_input_changed_before_backward_is_an_error_as_with_a_convolution() -> None:
    x = torch.randn(8, 16, 3, 3)
    out = TemporalShift(nn.Conv2d(16, 4, 1), 4)(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
