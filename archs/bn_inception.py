"""BN-Inception (arXiv:1502.03167, appendix) in the Caffe-derived key layout of the published TSN and TSM checkpoints.

Layers lie flat in the network under Caffe's names (`inception_3a_double_3x3_1`, its BN `inception_3a_double_3x3_1_bn`).
Every convolution has a bias, pooling rounds up, and the head is `fc` on 1024 features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ShiftFunction = Callable[[Tensor], Tensor]


class Inception(NamedTuple):
    """Channels of one inception block; `single` and `double` start with the 1x1 reduction."""

    name: str
    one: int  # 1x1 branch; 0: none, which makes the block halve height and width
    single: tuple[int, int]
    double: tuple[int, int]
    pool: str  # "avg" or "max"
    proj: int  # 1x1 after the pooling; 0: the pooled input itself


INCEPTIONS = (
    Inception("3a", 64, (64, 64), (64, 96), "avg", 32),
    Inception("3b", 64, (64, 96), (64, 96), "avg", 64),
    Inception("3c", 0, (128, 160), (64, 96), "max", 0),
    Inception("4a", 224, (64, 96), (96, 128), "avg", 128),
    Inception("4b", 192, (96, 128), (96, 128), "avg", 128),
    Inception("4c", 160, (128, 160), (128, 160), "avg", 128),
    Inception("4d", 96, (128, 192), (160, 192), "avg", 128),
    Inception("4e", 0, (128, 192), (192, 256), "max", 0),
    Inception("5a", 352, (192, 320), (160, 224), "avg", 128),
    Inception("5b", 352, (192, 320), (192, 224), "max", 128),
)
BLOCK_NAMES = ("1", "2", *(block.name for block in INCEPTIONS))


class BNInception(nn.Module):
    """(N, 3, H, W) -> (N, num_classes). Features are averaged over the H and W that are left.

    Attributes:
        block_shifts: one function or None for each of the twelve blocks of `BLOCK_NAMES`, applied to the block's input
            (N*T, C, H, W); see `build_temporal_ops`.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.block_shifts: list[ShiftFunction | None] = [None] * len(BLOCK_NAMES)
        self._add("conv1_7x7_s2", 3, 64, 7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        channels = 192
        for block in INCEPTIONS:
            channels = self._add_inception(block, channels)
        self.fc = nn.Linear(channels, num_classes)

    def _add(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> int:
        # torch's own initialisation, as published: one seed gives the same weights in both programs.
        self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))
        return outputs

    def _add_inception(self, block: Inception, inputs: int) -> int:
        name, stride = f"inception_{block.name}", 1 if block.one else 2
        outputs = self._add(f"{name}_1x1", inputs, block.one, 1) if block.one else 0
        self._add(f"{name}_3x3_reduce", inputs, block.single[0], 1)
        outputs += self._add(f"{name}_3x3", *block.single, 3, stride)
        self._add(f"{name}_double_3x3_reduce", inputs, block.double[0], 1)
        self._add(f"{name}_double_3x3_1", *block.double, 3)
        outputs += self._add(f"{name}_double_3x3_2", block.double[1], block.double[1], 3, stride)
        return outputs + (self._add(f"{name}_pool_proj", inputs, block.proj, 1) if block.proj else inputs)

    def build_temporal_ops(self, mask: str, shift: ShiftFunction) -> list[str]:
        """Shift the input of every block where `mask` has a 1 (12 characters of 0 and 1, in `BLOCK_NAMES` order).

        `shift` maps (N*T, C, H, W) to the same shape. Returns the names of the shifted blocks.
        """
        if len(mask) != len(BLOCK_NAMES) or set(mask) - {"0", "1"}:
            raise ValueError(f"mask {mask!r} must be {len(BLOCK_NAMES)} characters of 0 and 1, one for each block")
        self.block_shifts = [shift if flag == "1" else None for flag in mask]
        return [name for name, flag in zip(BLOCK_NAMES, mask, strict=True) if flag == "1"]

    def _shifted(self, block_index: int, x: Tensor) -> Tensor:
        shift = self.block_shifts[block_index]
        return x if shift is None else shift(x)

    def _conv(self, name: str, x: Tensor) -> Tensor:
        x = self.get_submodule(name)(x)
        return F.relu(self.get_submodule(f"{name}_bn")(x), inplace=True)

    def _inception(self, block: Inception, x: Tensor) -> Tensor:
        name, stride = f"inception_{block.name}", 1 if block.one else 2
        branches = [self._conv(f"{name}_1x1", x)] if block.one else []
        branches.append(self._conv(f"{name}_3x3", self._conv(f"{name}_3x3_reduce", x)))
        double = self._conv(f"{name}_double_3x3_1", self._conv(f"{name}_double_3x3_reduce", x))
        branches.append(self._conv(f"{name}_double_3x3_2", double))
        if block.pool == "avg":
            pooled = F.avg_pool2d(x, 3, stride, padding=1)
        elif stride == 1:
            pooled = F.max_pool2d(x, 3, stride, padding=1)
        else:
            # Caffe's pooling rounds up instead of padding. That halves an even side; an odd one (which 224 pixels never
            # lead to) needs the convolutions' padding to come out as long as theirs.
            pooled = F.max_pool2d(x, 3, stride, padding=(x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
        branches.append(self._conv(f"{name}_pool_proj", pooled) if block.proj else pooled)
        return torch.cat(branches, dim=1)

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1024, H / 32, W / 32)."""
        x = self._conv("conv1_7x7_s2", self._shifted(0, x))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = self._conv("conv2_3x3", self._conv("conv2_3x3_reduce", self._shifted(1, x)))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for index, block in enumerate(INCEPTIONS, start=2):
            x = self._inception(block, self._shifted(index, x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))


def bninception(num_classes: int = 1000) -> BNInception:
    """A BNInception with random weights."""
    return BNInception(num_classes)
