"""The in-place form around a convolution: equal to the plain one, and given up wherever it would not be."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ops.network import shift_conv
from ops.temporal_shift import TemporalShift
from tests.network.test_shift_ops import FORMATS, loop_shift, make_input, same_bits

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

    monkeypatch.setattr(F, "conv2d", recording)
    return addresses


@pytest.mark.parametrize("mode", (torch.no_grad, torch.inference_mode))
def test_inference_convolves_the_input_itself(mode: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(16, 4, 1)
    x = torch.randn(8, 16, 3, 3)
    expected, before = conv(loop_shift(x, 4, 8)), x.clone()
    addresses = in_place_calls(monkeypatch)
    with mode():
        for activation in (x, x.clone()):  # made outside of the mode, and inside
            assert torch.equal(TemporalShift(conv, 4, inplace=True)(activation), expected)
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
    shifted = TemporalShift(nn.Conv2d(8, 4, 1), 4, inplace=True)
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
    shifted = TemporalShift(conv, 4, inplace=True)
    x = torch.randn(8, 16, 5, 5, requires_grad=True)
    direct = torch.autograd.grad(shifted(x).square().sum(), [x, *conv.parameters()])
    shifted.zero_grad()
    checkpoint(shifted, x, use_reentrant=reentrant).square().sum().backward()
    for a, b in zip(direct, [x.grad, conv.weight.grad, conv.bias.grad], strict=True):
        assert torch.equal(a, b)


def test_a_gradient_that_is_the_input_itself() -> None:
    conv = nn.Conv2d(16, 16, 1)
    x = torch.randn(8, 16, 5, 5, requires_grad=True)
    before = x.detach().clone()
    expected = torch.autograd.grad(TemporalShift(conv, 4, 8, False)(x), conv.weight, before)[0]
    out = TemporalShift(conv, 4, inplace=True)(x)
    assert torch.equal(torch.autograd.grad(out, conv.weight, x.detach())[0], expected)
    assert torch.equal(x, before)


def test_an_input_changed_before_backward_is_an_error_as_with_a_convolution() -> None:
    x = torch.randn(8, 16, 3, 3)
    out = TemporalShift(nn.Conv2d(16, 4, 1), 4, inplace=True)(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


# --- memory that is not the network's own -----------------------------------------------------------------------------


@pytest.fixture
def no_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the content of the input was moved")

    monkeypatch.setattr(shift_conv, "Moved", refuse)


def test_read_only_memory_is_left_alone(tmp_path: Path, no_moves: None) -> None:
    values = np.random.default_rng(0).standard_normal((8, 16, 3, 3), dtype=np.float32)
    values.tofile(tmp_path / "activations")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "the NumPy array is not writable"
        x = torch.from_numpy(np.memmap(tmp_path / "activations", np.float32, "r", shape=values.shape))
    conv = nn.Conv2d(16, 4, 1)
    expected = conv(loop_shift(torch.from_numpy(values), 4, 8))
    with torch.no_grad():
        assert torch.equal(TemporalShift(conv, 4, inplace=True)(x), expected)
    assert torch.equal(TemporalShift(conv, 4, inplace=True)(x), expected)


def test_inference_tensors_outside_of_inference_mode_are_left_alone(no_moves: None) -> None:
    conv = nn.Conv2d(16, 4, 1)
    with torch.inference_mode():
        x = torch.randn(8, 16, 3, 3)
    expected = conv(loop_shift(x, 4, 8))
    out = TemporalShift(conv, 4, inplace=True)(x)
    assert torch.equal(out, expected)
    out.sum().backward()
    with torch.no_grad():
        assert torch.equal(TemporalShift(conv, 4, inplace=True)(x), expected)


HOOKS = {
    "offloading": torch.autograd.graph.save_on_cpu,
    "copying": lambda: torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone),
    "not dense": lambda: torch.autograd.graph.saved_tensors_hooks(
        torch.clone, lambda t: torch.stack((t, t), -1)[..., 0]
    ),
}


@pytest.mark.parametrize("name", HOOKS)
def test_tensors_that_saved_tensor_hooks_may_be_copying_are_left_alone(name: str, no_moves: None) -> None:
    conv = nn.Conv2d(16, 8, 1)
    x = torch.randn(8, 16, 5, 5, requires_grad=True)
    expected = torch.autograd.grad(conv(loop_shift(x.relu(), 4, 8)).sum(), (x, conv.weight))
    with HOOKS[name]():
        out = TemporalShift(conv, 4, inplace=True)(x.relu())
        with torch.no_grad():
            TemporalShift(conv, 4, inplace=True)(x)
    for a, b in zip(expected, torch.autograd.grad(out.sum(), (x, conv.weight)), strict=True):
        torch.testing.assert_close(b, a)


def test_the_module_alone_is_out_of_place_as_published(no_moves: None) -> None:
    conv = nn.Conv2d(16, 8, 1)
    x = torch.randn(8, 16, 5, 5)
    assert torch.equal(TemporalShift(conv, 4)(x), conv(loop_shift(x, 4, 8)))
