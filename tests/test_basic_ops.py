"""Segment consensus against plain arithmetic."""

from __future__ import annotations

import pytest
import torch

from ops.basic_ops import ConsensusModule, Identity, SegmentConsensus
from ops.common.errors import InputError


def test_avg_is_the_mean_over_segments() -> None:
    scores = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[0.0, -2.0], [4.0, 0.0]]])  # (N, T, K)
    assert torch.equal(ConsensusModule("avg")(scores), torch.tensor([[[2.0, 4.0]], [[2.0, -1.0]]]))
    assert torch.equal(SegmentConsensus("avg", dim=2)(scores)[..., 0], torch.tensor([[1.5, 4.5], [-1.0, 2.0]]))


def test_avg_shares_its_gradient_equally() -> None:
    scores = torch.randn(2, 4, 3, requires_grad=True)
    ConsensusModule("avg")(scores).sum().backward()
    assert torch.equal(scores.grad, torch.full((2, 4, 3), 0.25))


def test_identity_keeps_every_segment() -> None:
    scores = torch.randn(2, 4, 3)
    assert torch.equal(ConsensusModule("identity")(scores), scores)
    assert Identity()(scores) is scores


def test_an_unknown_consensus_names_the_choices() -> None:
    with pytest.raises(InputError, match=r"avg, identity.*'rnn'"):
        ConsensusModule("rnn")
