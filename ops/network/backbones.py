"""The 2D networks under TSN: how each is built, where its weights come from, how its first conv fits the modality."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision.models as tv
from torch import Tensor, nn

from archs.bn_inception import bninception
from archs.mobilenet_v2 import MobileNetV2
from ops.checkpoint.file import load_checkpoint
from ops.checkpoint.weights import average_input_channels, first_conv_name, fit_state_dict
from ops.common.download import download_timeout
from ops.common.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """One row: builder, name of its classifier, torchvision's ImageNet weights, and the pixel values it takes.

    `mean` and `std` are for values on [0, 1] where `div255`, else on 0-255; they are in the network's own order of
    channels, which is B, G, R where `bgr`.
    """

    build: Callable[[], nn.Module]
    last_layer_name: str = "fc"
    imagenet: str | None = None  # URL of IMAGENET1K_V1
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    flow_mean: float = 0.5
    div255: bool = True
    bgr: bool = False

    def normalization(self, modality: str) -> dict[str, Any]:
        """Arguments of `ops.transforms.ClipNormalize` for a modality: all but `channels`."""
        mean, std, bgr = list(self.mean), list(self.std), self.bgr
        if modality == "Flow":  # x and y have no colour: one value for both
            mean, std, bgr = [self.flow_mean], [round(sum(std) / len(std), 6)], False
        elif modality == "RGBDiff":  # differences have no mean to subtract; the published program only scaled them
            mean, std = [0.0] * 3, [1.0] * 3
        return {"mean": mean, "std": std, "div255": self.div255, "bgr": bgr, "modality": modality}


def _resnet(build: Callable[..., nn.Module], weights: type) -> Backbone:
    return Backbone(build=lambda: build(weights=None), imagenet=weights.IMAGENET1K_V1.url)


BACKBONES: dict[str, Backbone] = {
    "resnet18": _resnet(tv.resnet18, tv.ResNet18_Weights),
    "resnet34": _resnet(tv.resnet34, tv.ResNet34_Weights),
    "resnet50": _resnet(tv.resnet50, tv.ResNet50_Weights),
    "resnet101": _resnet(tv.resnet101, tv.ResNet101_Weights),
    "resnet152": _resnet(tv.resnet152, tv.ResNet152_Weights),
    "resnext50_32x4d": _resnet(tv.resnext50_32x4d, tv.ResNeXt50_32X4D_Weights),
    "resnext101_32x8d": _resnet(tv.resnext101_32x8d, tv.ResNeXt101_32X8D_Weights),
    "wide_resnet50_2": _resnet(tv.wide_resnet50_2, tv.Wide_ResNet50_2_Weights),
    "wide_resnet101_2": _resnet(tv.wide_resnet101_2, tv.Wide_ResNet101_2_Weights),
    "mobilenetv2": Backbone(
        build=MobileNetV2, last_layer_name="classifier", imagenet=tv.MobileNet_V2_Weights.IMAGENET1K_V1.url
    ),
    "BNInception": Backbone(
        build=bninception, mean=(104.0, 117.0, 128.0), std=(1.0, 1.0, 1.0), flow_mean=128.0, div255=False, bgr=True
    ),
}


def backbone_row(arch: str | nn.Module) -> Backbone:
    """The table's row of an architecture, or a row for a network of the user's own; InputError for an unknown name.

    A network of one's own needs a last linear layer, its classifier. It takes ImageNet's mean and standard deviation,
    or those that timm records with it.
    """
    if isinstance(arch, nn.Module):
        linear = [name for name, module in arch.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise InputError(f"{type(arch).__name__} has no linear layer: TSN puts its own in place of the last one")
        config = getattr(arch, "pretrained_cfg", None) or {}
        statistics = {name: tuple(config[name]) for name in ("mean", "std") if name in config}
        return Backbone(build=lambda: arch, last_layer_name=linear[-1], **statistics)
    if arch not in BACKBONES:
        raise InputError(f"unknown architecture {arch!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[arch]


def build_backbone(arch: str | nn.Module, pretrain: str, frame_channels: int | None = None) -> nn.Module:
    """Build a 2D network and fill it from `pretrain`; a network of the user's own is changed in place.

    `pretrain`: 'imagenet' (torchvision's IMAGENET1K_V1, through torch.hub's cache), 'none' or '' (random), or the path
    of a file: a bare network or a TSN or TSM checkpoint, whose classifier and non-local blocks are left out.
    `frame_channels`: None for RGB; else the first conv takes that many channels, its weights being the mean over the
    RGB ones, repeated - unless the file's conv is for that many channels already. InputError names what does not fit.
    A network of the user's own keeps its weights, unless `pretrain` is a file.
    """
    net = backbone_row(arch).build()
    if frame_channels is not None:
        conv = net.get_submodule(first_conv_name(net))
        conv.in_channels = frame_channels
        conv.weight = nn.Parameter(average_input_channels(conv.weight.detach(), frame_channels))
    if not pretrain or pretrain == "none" or (pretrain == "imagenet" and isinstance(arch, nn.Module)):
        return net
    file_modality = "RGB"
    if pretrain == "imagenet":
        state_dict, source = imagenet_state_dict(arch), f"ImageNet weights of {arch}"
    else:
        checkpoint = load_checkpoint(pretrain)
        state_dict, source = checkpoint.state_dict, str(pretrain)
        if checkpoint.known_options is not None:
            file_modality = checkpoint.known_options.modality
    report = fit_state_dict(
        net,
        state_dict,
        source=source,
        new_head=True,
        fine_tune=True,
        # RGBDiff with one difference has as many channels as RGB, but not the same meaning.
        average_first_conv=frame_channels == 3 and file_modality == "RGB",
    )
    logger.info("%s", report)
    return net


def imagenet_state_dict(arch: str) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights, downloaded once into torch.hub's cache.

    InputError where there are none for `arch`, or where the download fails: it says what to fetch and where to put it.
    """
    url = backbone_row(arch).imagenet
    if url is None:
        raise InputError(
            f"there are no ImageNet weights of {arch} to download: choose another --arch such as "
            "resnet50, give a file with --pretrain FILE, or start from random weights with --pretrain none"
        )
    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        logger.info("downloading %s to %s", url, path)
        hash_prefix = name.removesuffix(".pth").rsplit("-", 1)[1]  # resnet50-0676ba61.pth
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with download_timeout():
                torch.hub.download_url_to_file(url, str(path), hash_prefix)
        except Exception as error:  # no network, a wrong hash, a full disk: the way out is the same
            raise InputError(
                f"cannot download the ImageNet weights of {arch} ({error}): "
                f"fetch {url} elsewhere and save it as {path}, or use --pretrain none"
            ) from error
    try:
        return load_checkpoint(path).state_dict
    except InputError as error:
        raise InputError(f"{error}; delete it to download it again") from error
