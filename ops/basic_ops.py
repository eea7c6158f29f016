"""How the scores of a clip's segments become the scores of the clip (TSN, arXiv:1608.00859, section 3.1)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import Identity

from ops.checkpoint.options import CONSENSUS_TYPES
from ops.common.errors import InputError

__all__ = ["ConsensusModule", "Identity", "SegmentConsensus"]


class SegmentConsensus(nn.Module):
    """Consensus over one dimension of segment scores.

    Args:
        consensus_type: 'avg' is the mean over segments, 'identity' leaves the scores as they are.
        dim: the dimension of the segments.

    (N, T, K), dim 1 -> (N, 1, K) for 'avg', (N, T, K) for 'identity'.
    """

    def __init__(self, consensus_type: str = "avg", dim: int = 1):
        super().__init__()
        if consensus_type not in CONSENSUS_TYPES:
            raise InputError(f"the consensus is one of {', '.join(CONSENSUS_TYPES)}, got {consensus_type!r}")
        self.consensus_type = consensus_type
        self.dim = dim

    def forward(self, scores: Tensor) -> Tensor:
        if self.consensus_type == "identity":
            return scores
        return scores.mean(dim=self.dim, keepdim=True)

    def extra_repr(self) -> str:
        return f"{self.consensus_type!r}, dim={self.dim}"


# The published name of the module that TSN holds as `.consensus`.
ConsensusModule = SegmentConsensus
