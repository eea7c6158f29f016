"""Networks for torch.hub.

    model = torch.hub.load("path/to/clone", "tsm_resnet50", source="local", num_classes=27)
    model = torch.hub.load("path/to/clone", "tsm_resnet50", source="local", pretrained="my.pth.tar")

`model(clip)` takes (N, T*3, H, W) or (N, T, 3, H, W), normalised as `model.normalization` says, and gives
(N, num_classes).

All take the same arguments:
    pretrained: False for random weights, the path of a checkpoint, or the name of a published one that
        `python -m pretrained.fetch` has fetched. With another number of classes the classifier starts anew.
    num_classes: None for the checkpoint's own number, or 400 (Kinetics) without one.
    further keywords: those of `ops.models.TSN`, such as num_segments (8), dropout, input_size; they override the
        checkpoint's.
"""

from __future__ import annotations

from collections.abc import Callable as _Callable
from typing import Any as _Any

from ops.checkpoint.file import load_checkpoint as _load_checkpoint
from ops.checkpoint.weights import load_into as _load_into
from ops.common.errors import InputError as _InputError
from ops.models import TSN as _TSN
from pretrained.table import local_path as _local_path

dependencies = ["torch", "torchvision", "numpy", "PIL"]


def _build(pretrained: str | bool, num_classes: int | None, overrides: dict[str, _Any], **structure: _Any) -> _TSN:
    """The network of an entry point."""
    settings = {"num_segments": 8, "modality": "RGB", "dropout": 0.5, "partial_bn": False, "print_spec": False}
    settings |= {"pretrain": "none", **structure}
    if not pretrained:
        return _TSN(400 if num_classes is None else num_classes, **settings | overrides)
    if pretrained is True:
        raise _InputError("pretrained takes a checkpoint's path or published name (python -m pretrained.fetch --list)")
    checkpoint = _load_checkpoint(_local_path(pretrained))
    if checkpoint.known_options is not None:
        recorded = checkpoint.known_options.tsn_arguments()
        for name in ("base_model", "is_shift", "non_local", "online"):
            if recorded[name] != structure.get(name, False):
                raise _InputError(
                    f"{checkpoint.path} has {name} {recorded[name]}, this network {structure.get(name, False)}: "
                    "load it with the entry point of its kind"
                )
        settings |= recorded
    num_classes = checkpoint.num_class if num_classes is None else num_classes
    if num_classes is None:
        raise _InputError(f"{checkpoint.path} has no classifier: give num_classes")
    model = _TSN(**settings | overrides | {"num_class": num_classes})
    _load_into(model, checkpoint, new_head=num_classes != checkpoint.num_class)
    return model


def _entry(doc: str, **structure: _Any) -> _Callable[..., _TSN]:
    """An entry point; `structure` is what a checkpoint has to agree with."""

    def entry(pretrained: str | bool = False, num_classes: int | None = None, **options: _Any) -> _TSN:
        return _build(pretrained, num_classes, options, **structure)

    entry.__doc__ = doc
    return entry


tsn_resnet50 = _entry("TSN: ResNet-50 on each frame, scores averaged.", base_model="resnet50")
tsm_resnet18 = _entry("TSM on ResNet-18.", base_model="resnet18", is_shift=True)
tsm_resnet50 = _entry("TSM on ResNet-50.", base_model="resnet50", is_shift=True)
tsm_resnet50_nl = _entry(
    "TSM on ResNet-50 with non-local blocks.", base_model="resnet50", is_shift=True, non_local=True
)
tsm_resnet101 = _entry("TSM on ResNet-101.", base_model="resnet101", is_shift=True)
tsm_mobilenetv2 = _entry("TSM on MobileNetV2.", base_model="mobilenetv2", is_shift=True)
tsm_mobilenetv2_online = _entry(
    "TSM on MobileNetV2, shifting from the past only.", base_model="mobilenetv2", is_shift=True, online=True
)
