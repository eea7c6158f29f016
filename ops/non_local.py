"""Non-local blocks (arXiv:1711.07971): self-attention over all places of all frames of a clip, and their insertion."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet

from ops.common.errors import InputError

# The blocks of each stage that a non-local block follows (placed for ResNet-50; other depths: those that they have).
POSITIONS = {"layer2": (0, 2), "layer3": (0, 2, 4)}


class _NonLocalBlock(nn.Module):
    """Embedded Gaussian non-local block: x + BN(W(softmax(theta(x) . phi(x)) g(x))), (N, C, ...) -> the same.

    The last layer (BN, or W without `bn_layer`) starts at zero, so that the block is the identity until it has learned
    something.

    Args:
        inter_channels: inner channels (None: C // 2).
        sub_sample: max-pool phi and g 2x over length, or height and width, but not time (paper, sec. 3.3); the pooled
            sides must be 2 or more.
        bn_layer: end with a BN.
    """

    conv: type[nn.Module]
    max_pool: Callable[[], nn.Module]
    batch_norm: type[nn.Module]

    def __init__(
        self, in_channels: int, inter_channels: int | None = None, sub_sample: bool = True, bn_layer: bool = True
    ) -> None:
        super().__init__()
        inner = max(1, in_channels // 2) if inter_channels is None else inter_channels

        def project() -> nn.Module:
            conv = self.conv(in_channels, inner, 1)
            return nn.Sequential(conv, self.max_pool()) if sub_sample else conv

        # In the published order, which the parameters' numbers in an optimiser's state follow.
        self.g = project()
        self.W = self.conv(inner, in_channels, 1)
        if bn_layer:
            self.W = nn.Sequential(self.W, self.batch_norm(in_channels))
        self.theta = self.conv(in_channels, inner, 1)
        self.phi = project()
        last = self.W[1] if bn_layer else self.W
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x)  # (N, C / 2, ...)
        inner_shape = query.shape
        # (N, 1, positions, C / 2): one head
        query, key, value = (t.flatten(2).transpose(1, 2).unsqueeze(1) for t in (query, self.phi(x), self.g(x)))
        # scale=1: the paper's f has no 1 / sqrt(d). Fused, the (THW x THW / 4) attention matrix is never stored.
        y = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        y = y.squeeze(1).transpose(1, 2).reshape(inner_shape)
        return x + self.W(y)


class NONLocalBlock1D(_NonLocalBlock):
    """(N, C, L) -> the same."""

    conv, batch_norm, max_pool = nn.Conv1d, nn.BatchNorm1d, partial(nn.MaxPool1d, 2)


class NONLocalBlock2D(_NonLocalBlock):
    """(N, C, H, W) -> the same."""

    conv, batch_norm, max_pool = nn.Conv2d, nn.BatchNorm2d, partial(nn.MaxPool2d, 2)


class NONLocalBlock3D(_NonLocalBlock):
    """(N, C, T, H, W) -> the same: the one that `make_non_local` inserts."""

    conv, batch_norm, max_pool = nn.Conv3d, nn.BatchNorm3d, partial(nn.MaxPool3d, (1, 2, 2))


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
