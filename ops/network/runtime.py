"""Fold BatchNorm into the convolution in front of it: in evaluation it is one more scale and shift."""

from __future__ import annotations

import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fold_batchnorm(model: nn.Module) -> int:
    """Fold, in place, every BatchNorm whose convolution is known; outputs stay the same up to rounding.

    A pair is known where the place tells it: neighbours in an nn.Sequential (MobileNetV2, shortcuts, non-local
    blocks), or children called `convX` and `bnX` (ResNets) or `X` and `X_bn` (BNInception). A convolution inside
    a TemporalShift counts (the shift comes before it). A folded BatchNorm becomes nn.Identity.

    Args:
        model: in eval mode, not to be trained any more.

    Returns:
        The number of BatchNorms folded.

    Raises:
        ValueError: the model is in training mode, where BatchNorm is not a constant scale and shift.
    """
    if model.training:
        raise ValueError("fold_batchnorm needs a model in eval mode: call model.eval() first")
    count = 0
    for parent in list(model.modules()):
        for conv_name, bn_name in _pairs(parent):
            owner, name = _conv_of(parent, conv_name)
            batch_norm = getattr(parent, bn_name)
            if owner is None or not isinstance(batch_norm, _BATCH_NORMS) or batch_norm.running_mean is None:
                continue
            conv = getattr(owner, name)
            if conv.out_channels != batch_norm.num_features:
                continue
            setattr(owner, name, fuse_conv_bn_eval(conv, batch_norm))
            setattr(parent, bn_name, nn.Identity())
            count += 1
    return count


def _pairs(parent: nn.Module) -> list[tuple[str, str]]:
    """Names of children of `parent` that run one right after the other."""
    names = [name for name, _ in parent.named_children()]
    if isinstance(parent, nn.Sequential):
        return list(itertools.pairwise(names))
    known = set(names)
    partners = [(name, name.replace("conv", "bn", 1) if name.startswith("conv") else "") for name in names]
    partners += [(name, f"{name}_bn") for name in names]
    return [(name, partner) for name, partner in partners if partner in known and partner != name]


def _conv_of(parent: nn.Module, name: str) -> tuple[nn.Module | None, str]:
    """Where the convolution called `name` hangs: on `parent`, or as `.net` on the wrapper there; (None, "") if none."""
    child = getattr(parent, name)
    if isinstance(child, _CONVS):
        return parent, name
    if isinstance(getattr(child, "net", None), _CONVS):
        return child, "net"
    return None, ""
