"""Non-local blocks (arXiv:1711.07971): self-attention over all places of all frames of a clip, and their insertion."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet

from ops.common.errors import InputError

# The blocks of each stage that a non-local block follows (placed for ResNet-50; other depths: those that they have).
POSITIONS = {"layer2": (0, 2), "layer3": (0, 2, 4)}


class NONLocalBlock3D(nn.Module):
    """Embedded Gaussian non-local block: x + BN(W(softmax(theta(x) . phi(x)) g(x))), (N, C, T, H, W) -> the same.

    Inner channels are C // 2; phi and g are max-pooled 2x over height and width (paper, sec. 3.3). The BN after W
    starts at zero, so that the block is the identity until it has learned something. H and W must be 2 or more.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        inner = max(1, in_channels // 2)
        # In the published order, which the parameters' numbers in an optimiser's state follow.
        self.g = nn.Sequential(nn.Conv3d(in_channels, inner, 1), nn.MaxPool3d((1, 2, 2)))
        self.W = nn.Sequential(nn.Conv3d(inner, in_channels, 1), nn.BatchNorm3d(in_channels))
        self.theta = nn.Conv3d(in_channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv3d(in_channels, inner, 1), nn.MaxPool3d((1, 2, 2)))
        nn.init.zeros_(self.W[1].weight)
        nn.init.zeros_(self.W[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x)  # (N, C / 2, T, H, W)
        inner_shape = query.shape
        # (N, 1, positions, C / 2): one head
        query, key, value = (t.flatten(2).transpose(1, 2).unsqueeze(1) for t in (query, self.phi(x), self.g(x)))
        # scale=1: the paper's f has no 1 / sqrt(d). Fused, the (THW x THW / 4) attention matrix is never stored.
        y = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        y = y.squeeze(1).transpose(1, 2).reshape(inner_shape)
        return x + self.W(y)


class NL3DWrapper(nn.Module):
    """A residual block on frames followed by a non-local block on clips: (N*T, C, H, W) -> (N*T, C', H', W').

    `.block` is the wrapped block, `.nl` the non-local block.
    """

    def __init__(self, block: nn.Module, n_segment: int) -> None:
        super().__init__()
        self.block = block
        self.nl = NONLocalBlock3D(_out_channels(block))
        self.n_segment = n_segment

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        frames, channels, height, width = x.shape
        # (N*T, C, H, W) -> (N, C, T, H, W): a view, channels_last_3d where x is channels_last
        clip = x.view(frames // self.n_segment, self.n_segment, channels, height, width).transpose(1, 2)
        return self.nl(clip).transpose(1, 2).reshape(frames, channels, height, width)


def _out_channels(block: nn.Module) -> int:
    """Output channels of a residual block: those of its last BN in the main branch."""
    block = getattr(block, "net", block)  # place 'block' wraps it in a TemporalShift
    last_bn = getattr(block, "bn3", None) or block.bn2
    return last_bn.num_features


def make_non_local(net: nn.Module, n_segment: int) -> list[str]:
    """Put non-local blocks into a torchvision ResNet, in place: `POSITIONS` gives where; every block is kept.

    `n_segment` is the number of frames a clip has in layer2 and layer3. Call it after the shift's insertion. Returns
    the names of the wrapped blocks ("layer2.0", ...). Raises InputError for other networks.
    """
    if not isinstance(net, ResNet):
        raise InputError(f"--non_local works with ResNets (ResNeXt and wide ones too), not with {type(net).__name__}")
    names = []
    for stage_name, positions in POSITIONS.items():
        stage = getattr(net, stage_name)
        stage = getattr(stage, "net", stage)  # temporal pooling wraps layer2
        for position in positions:
            if position < len(stage):
                if isinstance(stage[position], NL3DWrapper):
                    raise InputError(f"{stage_name}.{position} has a non-local block already: insert it once")
                stage[position] = NL3DWrapper(stage[position], n_segment)
                names.append(f"{stage_name}.{position}")
    return names
