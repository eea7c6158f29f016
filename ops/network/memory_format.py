"""How weights lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def to_channels_last(model: nn.Module) -> nn.Module:
    """Lay a network's 2D convolutions out channels-last, in place, so that its activations are too; returns it.

    `model.to(memory_format=torch.channels_last)` refuses networks with 3D convolutions (non-local blocks).
    """
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
