"""The published streaming model's file: MobileNetV2, keys `features.{i}.conv.{j}.*` and `classifier.*`, nothing else.

Its shifts are in the program that runs it, not in the keys, and it holds neither options nor class names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from ops.checkpoint.file import Checkpoint
from ops.checkpoint.keys import canonical_key
from ops.checkpoint.options import ModelOptions
from ops.common.class_names import JESTER_CLASSES
from ops.common.errors import InputError

ARCH = "mobilenetv2"
SHIFT_DIV = 8  # fixed in the published program
_HEAD = "classifier"


def is_streaming_layout(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether these are the keys of the published streaming model."""
    first_and_last = {"features.0.0.weight", "features.18.0.weight", f"{_HEAD}.weight", f"{_HEAD}.bias"}
    return first_and_last <= set(state_dict) and all(
        key.startswith(("features.", f"{_HEAD}.")) and ".net." not in key for key in state_dict
    )


def streaming_options(checkpoint: Checkpoint) -> ModelOptions:
    """Options of a checkpoint; a file in the published layout has them under any name, and Jester's class names.

    Raises:
        InputError: a file that does not say what network it is of.
    """
    options = checkpoint.known_options
    is_jester = checkpoint.num_class == len(JESTER_CLASSES)
    if options is None and is_streaming_layout(checkpoint.state_dict):
        options = ModelOptions(
            dataset="jester" if is_jester else "unknown",
            arch=ARCH,
            num_class=checkpoint.num_class,
            is_shift=True,
            shift_div=SHIFT_DIV,
            online=True,
            dropout=0.0,
        )
    options = options or checkpoint.options  # raises, and says what would help
    if options.class_names is None and options.dataset == "jester" and is_jester:
        options = dataclasses.replace(options, class_names=list(JESTER_CLASSES))
    return options


def check_fits_layout(options: ModelOptions) -> None:
    """Raise InputError for a network that the published program could not run."""
    if options.arch != ARCH:
        raise InputError(f"the published streaming layout is {ARCH}'s, this is {options.arch}")
    if options.modality != "RGB":
        raise InputError(f"the published streaming program takes RGB, this network {options.modality}")
    if not (options.is_shift and options.online):
        raise InputError("the published streaming program shifts from the past only: train with --shift --online")
    if options.shift_div != SHIFT_DIV:
        raise InputError(
            f"the published streaming program shifts 1/{SHIFT_DIV} of the channels, this network "
            f"1/{options.shift_div}: train with --shift_div {SHIFT_DIV}"
        )


def to_streaming_layout(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the published keys: `module.base_model.features.3.conv.0.net.weight` loses its wrappers.

    Takes a MobileNetV2 in any layout; whether it fits is for `check_fits_layout`.
    """
    renamed = {canonical_key(key): value for key, value in state_dict.items()}
    return {key.replace("head.", f"{_HEAD}.") if key.startswith("head.") else key: v for key, v in renamed.items()}
