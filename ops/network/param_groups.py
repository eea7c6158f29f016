"""Which parameters learn how fast: the optimiser groups that TSN's published recipes rely on."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

# name -> (lr_mult, decay_mult). The optimiser's state in a checkpoint follows this order.
GROUPS = {
    "first_conv_weight": (1, 1),
    "first_conv_bias": (2, 0),
    "normal_weight": (1, 1),
    "normal_bias": (2, 0),
    "BN scale/shift": (1, 0),
    "custom_ops": (1, 1),
    "lr5_weight": (5, 1),
    "lr10_bias": (10, 0),
}
# Flow's first conv is the only layer that starts far from its ImageNet weights.
FLOW_GROUPS = {**GROUPS, "first_conv_weight": (5, 1), "first_conv_bias": (10, 0)}


def parameter_groups(
    model: nn.Module, *, first_conv: nn.Module, fast_classifier: nn.Module | None, flow: bool
) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into all eight groups; each is in exactly one, and a group may be empty.

    Args:
        first_conv: the layer of the first two groups.
        fast_classifier: the layer of the last two groups (None: they stay empty).
        flow: the first conv learns at Flow's rates.

    Returns dicts of params, lr_mult, decay_mult, name. Training multiplies learning rate and weight decay by them.
    """
    params: dict[str, list[nn.Parameter]] = {name: [] for name in GROUPS}
    seen: set[int] = set()
    for module in model.modules():
        if module is first_conv:
            weight_group, bias_group = "first_conv_weight", "first_conv_bias"
        elif module is fast_classifier:
            weight_group, bias_group = "lr5_weight", "lr10_bias"
        elif isinstance(module, _ConvNd | nn.Linear):
            weight_group, bias_group = "normal_weight", "normal_bias"
        elif isinstance(module, _BatchNorm):
            weight_group = bias_group = "BN scale/shift"
        else:
            weight_group = bias_group = "custom_ops"
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                params[bias_group if name == "bias" else weight_group].append(parameter)
    multipliers = FLOW_GROUPS if flow else GROUPS
    return [
        {"params": params[name], "lr_mult": lr_mult, "decay_mult": decay_mult, "name": name}
        for name, (lr_mult, decay_mult) in multipliers.items()
    ]
