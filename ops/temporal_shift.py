"""TemporalShift and TemporalPool (arXiv:1811.08383), and their insertion into 2D networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archs.bn_inception import BLOCK_NAMES, BNInception, ShiftFunction
from ops.checkpoint.weights import first_conv_name
from ops.common.errors import InputError
from ops.network.shift_conv import can_borrow, is_plain_conv, shift_conv
from ops.network.shift_ops import shift, shift_moves, split_frames

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
            a plain `nn.Conv2d`, the input is dense memory of PyTorch's own, nothing traces, no saved-tensor hook is
            active. The result is the same, only faster and smaller; everywhere else the shift is out of place. For
            inputs that nothing else reads at the same time, such as a network's activations (`make_temporal_shift`
            turns it on): two threads (or CUDA streams) that share one input would see it half moved and leave it
            damaged. They need inplace=False, or a clone of the input each.
        online: causal: no frame sees a later one.

    Input: (N*T, C, H, W). Output: that of `net` for a tensor of this shape.
    """

    def __init__(
        self, net: nn.Module, n_segment: int = 3, n_div: int = 8, inplace: bool = False, *, online: bool = False
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
        if moves and self.inplace and is_plain_conv(self.net) and can_borrow(x):
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
    modules: Sequence[str] | None = None,
) -> list[str]:
    """Insert the shift into a 2D network (arXiv:1811.08383, section 4).

    Without `modules`, the blocks are found by their structure: those of ResNets (`layer1` to `layer4`, with `conv1` in
    each block), inverted residuals with a 1x1 expansion and a shortcut (MobileNetV2 and V3, EfficientNet), both by
    torchvision's or timm's implementation, and archs.bn_inception.

    Args:
        place: `blockres` shifts the input of each residual block's first conv and leaves the shortcut alone; `block`
            shifts the block's input itself (ResNets, BNInception); BNInception also takes a mask of twelve 0s and 1s.
        temporal_pool: the net has, or will get, `make_temporal_pool`: stages 2-4 run at `pooled_segments(n_segment)`.
        online, inplace: see TemporalShift.
        modules: names of the modules to wrap (`net.named_modules()`), convolutions or blocks that begin with one;
            `place` counts for nothing then.

    Returns the names of the wrapped modules (BNInception: of the shifted blocks).
    Raises InputError for a net whose blocks are not found, for a name without a module, and for a net or module that is
    shifted already.
    """
    _check_counts(n_segment, n_div)
    wrap = partial(TemporalShift, n_segment=n_segment, n_div=n_div, inplace=inplace, online=online)
    is_pooled = temporal_pool or isinstance(getattr(net, "layer2", None), TemporalPool)
    if is_pooled and not _is_resnet(net):
        raise InputError(f"temporal_pool is for ResNets; {type(net).__name__} takes a shift without it")
    if modules is not None:
        changed = _shift_named(net, wrap, modules)
    elif isinstance(net, BNInception):
        shift_frames = partial(TemporalShift.shift, n_segment=n_segment, fold_div=n_div, inplace=False, online=online)
        return _shift_inception(net, shift_frames, place)
    elif place not in PLACES:
        raise InputError(f"the shift's place is one of {', '.join(PLACES)}, got {place!r}")
    elif _is_resnet(net):
        changed = _shift_resnet(net, wrap, place)
    else:
        changed = _shift_inverted_residuals(net, wrap, place)
    if is_pooled:
        _set_pooled_segments(net, n_segment)
    return changed


def _shift_named(net: nn.Module, wrap: Wrap, names: Sequence[str]) -> list[str]:
    known = dict(net.named_modules())
    for name in names:
        if name not in known:
            raise InputError(f"{type(net).__name__} has no module {name!r}: named_modules() lists those that it has")
        if not any(isinstance(module, nn.Conv2d) for module in known[name].modules()):
            raise InputError(f"{name} ({type(known[name]).__name__}) has no 2D convolution to shift the input of")
        if any(isinstance(module, TemporalShift) for module in known[name].modules()) or name.endswith(".net"):
            raise InputError(f"{name} has a temporal shift already: insert it once")
    if len(set(names)) < len(names):
        raise InputError(f"modules names one twice: {', '.join(names)}")
    for name in names:
        net.set_submodule(name, wrap(known[name]))
    return list(names)


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


def _shift_inverted_residuals(net: nn.Module, wrap: Wrap, place: str) -> list[str]:
    """Shift before the 1x1 expansion of each block that has one, and a shortcut."""
    if place == "block":
        raise InputError(f"place 'block' is for ResNets; {type(net).__name__} takes place 'blockres'")
    names = []
    for name, block in net.named_modules():
        # The shortcut's name in torchvision and in archs.mobilenet_v2, and in timm.
        if getattr(block, "use_res_connect", False) or getattr(block, "has_skip", False):
            conv_name = first_conv_name(block)
            conv = block.get_submodule(conv_name)
            if conv.kernel_size == (1, 1) and conv.out_channels > conv.in_channels:
                names.append(f"{name}.{conv_name}")
    if not names:
        raise InputError(
            f"no blocks to shift found in {type(net).__name__}: name the convolutions to shift, "
            "make_temporal_shift(net, T, modules=[...]) (docs/extend.md)"
        )
    return _shift_named(net, wrap, names)


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

    Shifts and non-local blocks already in stages 2-4 are set to the segments that are left there. A net that is pooled
    already stays as it is: `TSN(temporal_pool=True)` has pooled it before published scripts do.
    """
    if not _is_resnet(net):
        raise InputError(f"temporal_pool is for ResNets; {type(net).__name__} has no layer1 to layer4")
    if isinstance(net.layer2, TemporalPool):
        if net.layer2.n_segment != n_segment:
            raise InputError(f"layer2 has a temporal pool of {net.layer2.n_segment} segments already, not {n_segment}")
        return []
    net.layer2 = TemporalPool(net.layer2, n_segment)
    _set_pooled_segments(net, n_segment)
    return ["layer2"]


def _is_resnet(net: nn.Module) -> bool:
    return all(isinstance(getattr(net, stage, None), nn.Module) for stage in STAGES)


def _blocks(stage: nn.Module) -> nn.Sequential:
    """The blocks of a ResNet's stage, also where a TemporalPool wraps it."""
    return stage.net if isinstance(stage, TemporalPool) else stage


def _set_pooled_segments(net: nn.Module, n_segment: int) -> None:
    """Set what lies in stages 2-4 to the number of segments left after the pooling."""
    for stage in STAGES[1:]:
        for module in getattr(net, stage).modules():
            if hasattr(module, "n_segment") and not isinstance(module, TemporalPool):
                module.n_segment = pooled_segments(n_segment)


def set_segments(net: nn.Module, n_segment: int) -> None:
    """Set everything in a network that counts frames (shifts, pooling, non-local blocks) to clips of another length."""
    _check_counts(n_segment, 1)
    for module in net.modules():
        if hasattr(module, "n_segment"):
            module.n_segment = n_segment
    if isinstance(net, BNInception):
        net.block_shifts = [shift and partial(shift, n_segment=n_segment) for shift in net.block_shifts]
    elif isinstance(getattr(net, "layer2", None), TemporalPool):
        _set_pooled_segments(net, n_segment)
