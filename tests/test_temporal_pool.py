"""TemporalPool against a plain loop and the published pooling, and its place in a ResNet."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.common.errors import InputError
from ops.temporal_shift import TemporalPool, TemporalShift, make_temporal_pool, make_temporal_shift, pooled_segments
from tests.network.test_shift_ops import FORMATS
from tests.test_temporal_shift import build


def loop_pool(x: Tensor, n_segment: int) -> Tensor:
    """Max over frames 2t - 1, 2t, 2t + 1 of each clip."""
    clips = x.view(-1, n_segment, *x.shape[1:])
    centres = range(0, n_segment, 2)
    pooled = [clips[:, max(0, t - 1) : t + 2].amax(1) for t in centres]
    return torch.stack(pooled, 1).flatten(0, 1)


@pytest.mark.parametrize("n_segment", (1, 2, 5, 8))
@pytest.mark.parametrize("memory_format", FORMATS)
def test_temporal_pool(n_segment: int, memory_format: torch.memory_format) -> None:
    x = torch.randn(2 * n_segment, 3, 4, 5).relu().to(memory_format=memory_format).requires_grad_()
    pooled = TemporalPool(nn.Identity(), n_segment)(x)
    assert torch.equal(pooled, loop_pool(x, n_segment))
    assert pooled.shape[0] == 2 * pooled_segments(n_segment)
    assert pooled.is_contiguous(memory_format=memory_format)
    # The published module pools (N, C, T, H, W); among equal values the gradient goes to the same frame.
    volume = x.view(2, n_segment, 3, 4, 5).transpose(1, 2)
    published = F.max_pool3d(volume, (3, 1, 1), (2, 1, 1), (1, 0, 0)).transpose(1, 2)
    weights = torch.randn_like(pooled)
    got = torch.autograd.grad((pooled * weights).sum(), x)[0]
    expected = torch.autograd.grad((published * weights.view(published.shape)).sum(), x)[0]
    assert torch.equal(got, expected)
    with pytest.raises(InputError, match="does not divide"):
        TemporalPool(nn.Identity(), 7)(x)


@pytest.mark.parametrize(("n_segment", "left"), ((8, 4), (5, 3)))
def test_temporal_pool_in_a_resnet(n_segment: int, left: int) -> None:
    def pool_first(net: nn.Module) -> None:
        assert make_temporal_pool(net, n_segment) == ["layer2"]
        make_temporal_shift(net, n_segment, temporal_pool=True)

    def pool_last(net: nn.Module) -> None:
        make_temporal_shift(net, n_segment, temporal_pool=True)
        make_temporal_pool(net, n_segment)

    def pool_unannounced(net: nn.Module) -> None:
        make_temporal_shift(net, n_segment)
        make_temporal_pool(net, n_segment)

    x = torch.randn(2 * n_segment, 3, 32, 32)
    outs = []
    for insert in (pool_first, pool_last, pool_unannounced):
        net = build("resnet18").eval()
        insert(net)
        shifts = {key: m.n_segment for key, m in net.named_modules() if isinstance(m, TemporalShift)}
        assert len(shifts) == 8
        assert "layer2.net.0.conv1" in shifts
        assert all(segments == (n_segment if "layer1" in key else left) for key, segments in shifts.items())
        outs.append(net(x))
        assert outs[-1].shape == (2 * left, 5)
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(outs))
    assert make_temporal_pool(net, n_segment) == []  # once more is once
    assert torch.equal(net(x), outs[-1])
    with pytest.raises(InputError, match="already"):
        make_temporal_pool(net, n_segment + 2)
