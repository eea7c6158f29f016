"""The options of a TSN: which values are possible, and what it prints of them."""

from __future__ import annotations

from torch import nn

from ops.common.errors import InputError
from ops.common.modality import check_modality

_MIN_INPUT_SIZE = 32


def check_options(net: nn.Module) -> None:
    """Raise InputError for a value of a TSN's options that is out of range, or does not go with another."""
    check_modality(net.modality)
    for name in ("num_class", "num_segments", "new_length"):
        if getattr(net, name) < 1:
            raise InputError(f"{name} must be 1 or more, got {getattr(net, name)}")
    if net.input_size < _MIN_INPUT_SIZE:
        raise InputError(
            f"input_size must be {_MIN_INPUT_SIZE} or more, got {net.input_size}: networks halve it five times"
        )
    if net.modality == "RGB" and net.new_length != 1:
        raise InputError(f"RGB takes one frame a segment: new_length must be 1, got {net.new_length}")
    if not 0 <= net.dropout < 1:
        raise InputError(f"dropout must be at least 0 and less than 1, got {net.dropout}")
    if not net.before_softmax and net.consensus_type != "avg":
        raise InputError(f"before_softmax=False needs consensus_type 'avg', got {net.consensus_type!r}")


def describe_options(net: nn.Module) -> str:
    """A TSN's options as lines of text, which it prints when it is built."""
    shift = f"1/{net.shift_div} {net.shift_place}{' online' if net.online else ''}" if net.is_shift else "off"
    rows = {
        "base model": net.arch,
        "input_modality": net.modality,
        "num_segments": net.num_segments,
        "new_length": net.new_length,
        "consensus_module": net.consensus_type,
        "dropout_ratio": net.dropout,
        "temporal shift": shift,
        "temporal pool": net.temporal_pool,
        "non-local": net.non_local,
        "pretrain": net.pretrain or "none",
    }
    return "\n".join(["TSN configuration:", *(f"    {name + ':':<20}{value}" for name, value in rows.items())])
