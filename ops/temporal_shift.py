"""TemporalShift and TemporalPool (arXiv:1811.08383), and their insertion into ResNets, MobileNetV2 and BNInception."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archs.bn_inception import BLOCK_NAMES, BNInception, ShiftFunction
from archs.mobilenet_v2 import InvertedResidual, MobileNetV2
from ops.common.errors import InputError
from ops.network.shift_ops import can_move, is_eager, is_plain_conv, shift, shift_conv, shift_moves, split_frames

STAGES = ("layer1", "layer2", "layer3", "layer4")
PLACES = ("blockres", "block")
# ResNets this deep shift every second block (`blockres`).
DEEP_LAYER3_BLOCKS = 23


def _check_counts(n_segment: int, fold_div: int) -> None:
    if n_segment < 1:
        raise InputError(f"n_segment is the number of frames in a clip, 1 or more, got {n_segment}")
    if fold_div < 1:
        raise InputError(f"the shift divisor is 1 or more (1/divisor of the channels move each way), got {fold_div}")


class TemporalShift(nn.Module):
    """`net` applied to its input shifted along time.

    Channels [0, C // n_div) of frame t come from frame t + 1, the next C // n_div from frame t - 1, zeros where there
    is no such frame; with `online`, only channels [0, C // n_div) move, and come from frame t - 1.

    Args:
        net: the wrapped module, kept as `.net`.
        n_segment: frames a clip (T).
        n_div: one part in `n_div` of the channels moves each way.
        inplace: move frames inside the memory of the input and restore them bit for bit, where that is valid: `net` is
            a plain `nn.Conv2d`, the input is dense, nothing traces. The result is the same, only faster and smaller;
            everywhere else the shift is out of place.
        online: causal: no frame sees a later one.

    Input: (N*T, C, H, W). Output: that of `net` for a tensor of this shape.
    """

    def __init__(
        self, net: nn.Module, n_segment: int = 3, n_div: int = 8, inplace: bool = True, *, online: bool = False
    ):
        super().__init__()
        _check_counts(n_segment, n_div)
        self.net = net
        self.n_segment = n_segment
        self.fold_div = n_div
        self.inplace = inplace
        self.online = online

    def forward(self, x: Tensor) -> Tensor:
        moves = shift_moves(x.shape[1], self.fold_div, online=self.online)
        if moves and self.inplace and is_plain_conv(self.net) and is_eager(x) and can_move(x):
            return shift_conv(x, self.net, self.n_segment, moves)
        return self.net(shift(x, self.n_segment, moves))

    @staticmethod
    def shift(x: Tensor, n_segment: int, fold_div: int = 3, inplace: bool = False, *, online: bool = False) -> Tensor:
        """The shift alone: (N*T, C, ...) -> the same shape.

        `inplace` changes `x` itself, as `relu_` does (use the returned tensor). Raises InputError where T does not
        divide the first dimension.
        """
        _check_counts(n_segment, fold_div)
        if x.dim() < 2:
            raise InputError(f"the temporal shift takes (clips * segments, channels, ...), got shape {tuple(x.shape)}")
        return shift(x, n_segment, shift_moves(x.shape[1], fold_div, online=online), inplace=inplace)

    def extra_repr(self) -> str:
        return f"n_segment={self.n_segment}, n_div={self.fold_div}, inplace={self.inplace}, online={self.online}"


def pooled_segments(n_segment: int) -> int:
    """Frames a clip after a TemporalPool: 8 -> 4, 5 -> 3."""
    return (n_segment + 1) // 2


class TemporalPool(nn.Module):
    """`net` applied to its input max-pooled over time (kernel 3, stride 2, padding 1).

    Input: (N*T, C, H, W). `net` gets (N*T', C, H, W), T' = `pooled_segments(T)`.
    """

    def __init__(self, net: nn.Module, n_segment: int):
        super().__init__()
        _check_counts(n_segment, 1)
        self.net = net
        self.n_segment = n_segment

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.temporal_pool(x, self.n_segment))

    @staticmethod
    def temporal_pool(x: Tensor, n_segment: int) -> Tensor:
        """(N*T, C, H, W) -> (N*T', C, H, W)."""
        split_frames(x, n_segment)
        # A frame's values are one row of an image T high: a 2D pooling needs no transposed copies of the activation.
        channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        frames = x.permute(0, 2, 3, 1) if channels_last else x
        rows = frames.reshape(-1, 1, n_segment, x.shape[1:].numel())
        pooled = F.max_pool2d(rows, kernel_size=(3, 1), stride=(2, 1), padding=(1, 0))
        pooled = pooled.view(-1, *frames.shape[1:])
        return pooled.permute(0, 3, 1, 2) if channels_last else pooled

    def extra_repr(self) -> str:
        return f"n_segment={self.n_segment}"


# --- insertion --------------------------------------------------------------------------------------------------------

Wrap = Callable[[nn.Module], TemporalShift]


def make_temporal_shift(
    net: nn.Module,
    n_segment: int,
    n_div: int = 8,
    place: str = "blockres",
    temporal_pool: bool = False,
    *,
    online: bool = False,
    inplace: bool = True,
) -> list[str]:
    """Insert the shift into a ResNet, a MobileNetV2 or a BNInception (arXiv:1811.08383, section 4).

    Args:
        place: `blockres` shifts the input of each residual block's first conv and leaves the shortcut alone; `block`
            shifts the block's input itself (ResNets, BNInception); BNInception also takes a mask of twelve 0s and 1s.
        temporal_pool: the net has, or will get, `make_temporal_pool`: stages 2-4 run at `pooled_segments(n_segment)`.
        online, inplace: see TemporalShift.

    Returns the names of the wrapped modules (BNInception: of the shifted blocks).
    Raises InputError for an unknown kind of net, and for one that is shifted already.
    """
    _check_counts(n_segment, n_div)
    if temporal_pool and isinstance(net, BNInception | MobileNetV2):
        raise InputError(f"temporal_pool is for ResNets; {type(net).__name__} takes a shift without it")
    if isinstance(net, BNInception):
        shift_frames = partial(TemporalShift.shift, n_segment=n_segment, fold_div=n_div, inplace=False, online=online)
        return _shift_inception(net, shift_frames, place)
    if place not in PLACES:
        raise InputError(f"the shift's place is one of {', '.join(PLACES)}, got {place!r}")
    wrap = partial(TemporalShift, n_segment=n_segment, n_div=n_div, inplace=inplace, online=online)
    if isinstance(net, MobileNetV2):
        return _shift_mobilenet(net, wrap, place)
    if not _is_resnet(net):
        raise InputError(
            f"there is no temporal shift for {type(net).__name__}: it takes torchvision's ResNets "
            "(ResNeXt and wide ones too), archs.mobilenet_v2 and archs.bn_inception"
        )
    changed = _shift_resnet(net, wrap, place)
    if temporal_pool or isinstance(net.layer2, TemporalPool):
        _set_pooled_segments(net, n_segment)
    return changed


def _shift_resnet(net: nn.Module, wrap: Wrap, place: str) -> list[str]:
    every = 2 if place == "blockres" and len(_blocks(net.layer3)) >= DEEP_LAYER3_BLOCKS else 1
    changed = []
    for stage in STAGES:
        blocks = _blocks(getattr(net, stage))
        for index in range(0, len(blocks), every):
            name = f"{stage}.{index}" if blocks is getattr(net, stage) else f"{stage}.net.{index}"
            block, conv1 = blocks[index], getattr(blocks[index], "conv1", None)
            if isinstance(block, TemporalShift) or isinstance(conv1, TemporalShift):
                raise InputError(f"{name} has a temporal shift already: insert it once")
            if place == "block":
                blocks[index] = wrap(block)
            elif conv1 is None:
                raise InputError(f"{name} ({type(block).__name__}) has no conv1 to shift: insert the shift first")
            else:
                block.conv1 = wrap(conv1)
                name += ".conv1"
            changed.append(name)
    return changed


def _shift_mobilenet(net: MobileNetV2, wrap: Wrap, place: str) -> list[str]:
    """Shift before the expansion of each block that has one, and a shortcut."""
    if place == "block":
        raise InputError("place 'block' is for ResNets; MobileNetV2 takes place 'blockres'")
    changed = []
    for name, block in net.named_modules():
        if isinstance(block, InvertedResidual) and block.use_res_connect and block.expands:
            if isinstance(block.conv[0], TemporalShift):
                raise InputError(f"{name}.conv.0 has a temporal shift already: insert it once")
            block.conv[0] = wrap(block.conv[0])
            changed.append(f"{name}.conv.0")
    return changed


def _shift_inception(net: BNInception, shift_frames: ShiftFunction, place: str) -> list[str]:
    """Shift the inputs of whole blocks: all branches of one read it, so there is no in-place form."""
    num_blocks = len(BLOCK_NAMES)
    # "block" is all but the first, whose input is the network's own: pixels, no features.
    mask = "0" + "1" * (num_blocks - 1) if place == "block" else place
    if len(mask) != num_blocks or set(mask) - {"0", "1"}:
        raise InputError(
            f"the shift's place {place!r} does not work with BNInception, whose blocks change shape and have "
            f"no shortcut: use 'block', or a mask of {num_blocks} characters 0 and 1 (blocks {', '.join(BLOCK_NAMES)})"
        )
    if any(net.block_shifts):
        raise InputError("BNInception has a temporal shift already: insert it once")
    return net.build_temporal_ops(mask, shift_frames)


def make_temporal_pool(net: nn.Module, n_segment: int) -> list[str]:
    """Max-pool over time before a ResNet's layer2 (then `layer2.net`); return the names of the wrapped modules.

    Shifts already inserted into stages 2-4 are set to the segments that are left there.
    """
    if not _is_resnet(net):
        raise InputError(f"temporal_pool is for ResNets; {type(net).__name__} has no layer1 to layer4")
    if isinstance(net.layer2, TemporalPool):
        raise InputError("layer2 has a temporal pool already: insert it once")
    net.layer2 = TemporalPool(net.layer2, n_segment)
    _set_pooled_segments(net, n_segment)
    return ["layer2"]


def _is_resnet(net: nn.Module) -> bool:
    return all(isinstance(getattr(net, stage, None), nn.Module) for stage in STAGES)


def _blocks(stage: nn.Module) -> nn.Sequential:
    """The blocks of a ResNet's stage, also where a TemporalPool wraps it."""
    return stage.net if isinstance(stage, TemporalPool) else stage


def _set_pooled_segments(net: nn.Module, n_segment: int) -> None:
    """Set the shifts in stages 2-4 to the number of segments left after the pooling."""
    for stage in STAGES[1:]:
        for module in getattr(net, stage).modules():
            if isinstance(module, TemporalShift):
                module.n_segment = pooled_segments(n_segment)
