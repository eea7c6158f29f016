"""The in-place shift's second, batched and forward derivatives: those of the plain shift."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.models import TSN
from ops.temporal_shift import TemporalShift
from tests.network.test_shift_ops import FORMATS, loop_shift


def double_conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 3, 3, padding=1).double()


def by_loop(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    """What TemporalShift(conv, 3, 4) computes, from plain operations."""
    return lambda x: F.conv2d(loop_shift(x, 3, 4), conv.weight, conv.bias, padding=1)


@pytest.mark.parametrize("frozen", (False, True))
def test_first_and_second_derivatives_are_those_of_finite_differences(frozen: bool) -> None:
    conv = double_conv().requires_grad_(not frozen)
    shifted = TemporalShift(conv, 3, 4, inplace=True)
    x = torch.randn(3, 8, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        return shifted(x.sin())

    inputs = (x, *(() if frozen else conv.parameters()))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_hessians_equal_those_of_plain_operations() -> None:
    conv = double_conv()
    shifted, plain = TemporalShift(conv, 3, 4, inplace=True), by_loop(conv)
    x, direction = torch.randn(2, 3, 8, 2, 2, dtype=torch.float64)

    def loss(net: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: net(x.sin()).pow(3).sum()

    functional = torch.autograd.functional
    expected = torch.func.hessian(loss(plain))(x)
    torch.testing.assert_close(torch.func.hessian(loss(shifted))(x), expected)
    for vectorize in (False, True):
        torch.testing.assert_close(functional.hessian(loss(shifted), x, vectorize=vectorize), expected)
    product = torch.einsum("abcdefgh,efgh->abcd", expected, direction)
    for way in (functional.hvp, functional.vhp):
        torch.testing.assert_close(way(loss(shifted), x, direction)[1], product)


@pytest.mark.parametrize("inplace", (False, True))
def test_jacobians_and_batched_gradients_equal_those_of_plain_operations(inplace: bool) -> None:
    conv = double_conv()
    shifted, plain = TemporalShift(conv, 3, 4, inplace), by_loop(conv)
    x = torch.randn(6, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.functional.jacobian(plain, x)
    for options in ({}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}):
        torch.testing.assert_close(torch.autograd.functional.jacobian(shifted, x, **options), expected)
    for memory_format in FORMATS:
        grads = torch.randn(5, 6, 3, 2, 2, dtype=torch.float64)
        activation = x.to(memory_format=memory_format) * 1
        batched = torch.autograd.grad(shifted(activation), (x, *conv.parameters()), grads, is_grads_batched=True)
        for index, grad in enumerate(grads):
            single = torch.autograd.grad(plain(x), (x, *conv.parameters()), grad)
            for a, b in zip(single, batched, strict=True):
                torch.testing.assert_close(b[index], a)


# --- whole networks ---------------------------------------------------------------------------------------------------


def gradient_penalty(net: nn.Module, clip: Tensor) -> list[Tensor]:
    """Gradients of WGAN-GP's penalty (arXiv:1704.00028, eq. 3), through the gradient of the scores."""
    clip = clip.clone().requires_grad_()
    grad = torch.autograd.grad(net(clip).sum(), clip, create_graph=True)[0]
    (grad.flatten(1).norm(dim=1) - 1).square().mean().backward()
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


def hessian_vector_product(net: nn.Module, clip: Tensor) -> list[Tensor]:
    """H v for the loss and the parameters, v being the parameters themselves."""
    parameters = list(net.parameters())
    grads = torch.autograd.grad(net(clip).square().sum(), parameters, create_graph=True)
    product = sum((grad * parameter.detach()).sum() for grad, parameter in zip(grads, parameters, strict=True))
    return list(torch.autograd.grad(product, parameters))


@pytest.mark.parametrize(
    ("arch", "derivative"), [("resnet18", gradient_penalty), ("mobilenetv2", hessian_vector_product)]
)
def test_second_derivatives_of_a_network_equal_those_of_the_plain_shift(arch: str, derivative: Callable) -> None:
    results = []
    clip = torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)
    for inplace in (False, True):
        torch.manual_seed(0)
        options = {"is_shift": True, "dropout": 0, "pretrain": "none", "partial_bn": False, "print_spec": False}
        net = TSN(2, 3, "RGB", arch, **options, inplace_shift=inplace).double()
        nn.init.normal_(net.classifier.weight)
        results.append(derivative(net, clip))
    assert len(results[0]) > 50
    for plain, inplace in zip(*results, strict=True):
        assert plain.norm() > 0 or plain.dim() == 1  # a bias before a batch norm has no gradient
        torch.testing.assert_close(inplace, plain)
