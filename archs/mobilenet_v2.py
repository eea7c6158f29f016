"""MobileNetV2 (arXiv:1801.04381) in the key layout that the published TSM checkpoints use.

`features.0` is the stem (conv, BN, ReLU6), `features.1` to `features.17` are inverted residuals whose layers lie flat
in `.conv`, `features.18` is the last 1x1 convolution and `classifier` is one Linear. torchvision nests the same layers
one level deeper: `from_torchvision` renames its keys.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

# expansion, channels, blocks, stride of the first block (paper, table 2)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, never more than 10 % below `channels`: 24 * 0.75 -> 24, 32 * 0.5 -> 16."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand 1x1, filter 3x3 depthwise, project 1x1: (N, inputs, H, W) -> (N, outputs, H / stride, W / stride).

    `.conv` holds 8 layers (conv, BN, ReLU6, conv, BN, ReLU6, conv, BN), or the last 5 where nothing expands.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*_conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*_conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)]
        layers += _conv_bn(hidden, outputs, 1)
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inputs == outputs
        self.expands = expansion != 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> (N, n_class). The features are averaged over H and W, so any size from 32 pixels works.

    input_size: published scripts pass it; any multiple of 32.
    """

    def __init__(self, n_class: int = 1000, input_size: int = 224, width_mult: float = 1.0) -> None:
        super().__init__()
        if input_size % 32:
            raise ValueError(f"input_size must be a multiple of 32, got {input_size}")
        channels = _round_channels(32 * width_mult)
        self.last_channel = _round_channels(1280 * max(1.0, width_mult))
        features: list[nn.Module] = [nn.Sequential(*_conv_bn(3, channels, 3, stride=2), nn.ReLU6(inplace=True))]
        for expansion, outputs, num_blocks, first_stride in STAGES:
            outputs = _round_channels(outputs * width_mult)
            for block in range(num_blocks):
                features.append(InvertedResidual(channels, outputs, first_stride if block == 0 else 1, expansion))
                channels = outputs
        features.append(nn.Sequential(*_conv_bn(channels, self.last_channel, 1), nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Linear(self.last_channel, n_class)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (N, 1280, H / 32, W / 32)
        return self.classifier(x.mean(dim=(2, 3)))


def mobilenet_v2(pretrained: bool = True) -> MobileNetV2:
    """A MobileNetV2 of 1000 classes; `pretrained`: with torchvision's IMAGENET1K_V1 weights, downloaded once."""
    net = MobileNetV2()
    if pretrained:
        weights = MobileNet_V2_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True, weights_only=True)
        net.load_state_dict(from_torchvision(weights))
    return net


def from_torchvision(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of torchvision's mobilenet_v2 to this layout; a dict already in it is returned unchanged.

    torchvision groups each conv with its BN: `conv.0.1` is this layout's `conv.1`, and `conv.1.0` its `conv.3`
    (in `features.1`, which expands nothing, the flat layout starts at the depthwise conv: `conv.1` is `conv.3`).
    """
    if not any(re.fullmatch(r"features\.\d+\.conv\.\d+\.\d+\.weight", key) for key in state_dict):
        return state_dict

    def renamed(key: str) -> str:
        if key.startswith("classifier.1."):
            return key.replace("classifier.1.", "classifier.")
        match = re.fullmatch(r"(features\.\d+\.conv)\.(\d+)\.(?:(\d+)\.)?(\w+)", key)
        if match is None:
            return key
        prefix, group, inner, name = match.groups()
        num_groups = 1 if prefix == "features.1.conv" else 2  # conv-BN-ReLU triples before the final conv and BN
        position = 3 * int(group) + int(inner) if inner else 3 * num_groups + int(group) - num_groups
        return f"{prefix}.{position}.{name}"

    return {renamed(key): value for key, value in state_dict.items()}
