"""How a network runs: mixed precision, layout in memory, BatchNorm folded for evaluation, errors of torch.compile."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ops.common.errors import InputError

logger = logging.getLogger(__name__)

_AMP_TYPES = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Mixed precision: `amp` is 'none', 'bf16' or 'fp16'."""
    dtype = _AMP_TYPES[amp]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def to_channels_last(model: nn.Module) -> nn.Module:
    """Lay the weights of 2D convolutions out channels-last, in place, so that activations are too; return the model.

    `model.to(memory_format=torch.channels_last)` refuses networks with 3D convolutions (non-local blocks).
    """
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def fold_batchnorm(model: nn.Module) -> int:
    """Fold, in place, each BatchNorm into the convolution before it; outputs stay the same up to rounding.

    Which convolution that is follows from the order in an nn.Sequential (MobileNetV2, shortcuts, non-local blocks), or
    from the names: `convX` and `bnX` (ResNets), `X` and `X_bn` (BNInception). A convolution inside a TemporalShift
    counts, as the shift comes before it. A folded BatchNorm becomes nn.Identity.

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
        for name, bn_name in _neighbours(parent):
            owner, batch_norm = parent, getattr(parent, bn_name)
            if not isinstance(getattr(owner, name), _CONVS):
                owner, name = getattr(owner, name), "net"
            conv = getattr(owner, name, None)
            # A subclass may do more than normalise: timm's BatchNormAct2d is the activation, too.
            if not isinstance(conv, _CONVS) or type(batch_norm) not in _BATCH_NORMS:
                continue
            if batch_norm.running_mean is None or conv.out_channels != batch_norm.num_features:
                continue
            setattr(owner, name, fuse_conv_bn_eval(conv, batch_norm))
            setattr(parent, bn_name, nn.Identity())
            count += 1
    return count


def _neighbours(parent: nn.Module) -> list[tuple[str, str]]:
    """Names of children of `parent` that run one right after the other."""
    names = [name for name, _ in parent.named_children()]
    if isinstance(parent, nn.Sequential):
        return list(itertools.pairwise(names))
    pairs = [(name, name.replace("conv", "bn", 1)) for name in names if name.startswith("conv")]
    pairs += [(name, f"{name}_bn") for name in names]
    return [pair for pair in pairs if pair[1] in names]


@contextlib.contextmanager
def compile_errors(enabled: bool = True) -> Iterator[None]:
    """Report a failure of torch.compile (no C++ compiler, say) in one line; it happens when a network is called."""
    if not enabled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import exc

    kinds = (TorchDynamoException, getattr(exc, "InductorError", TorchDynamoException))  # the latter since torch 2.7
    try:
        yield
    except kinds as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"--compile does not work on this machine ({reason}): leave it out") from error


def warn_if_compiling_is_slow(enabled: bool, device: torch.device) -> None:
    """Warn of --compile on a CPU, where the shift becomes a copy: a ResNet-50 takes 1.4 times as long to evaluate."""
    if enabled and device.type == "cpu":
        logger.warning("Warning: --compile is for GPUs; on a CPU the compiled network is slower")
