"""Keys of a state_dict: one name for each weight in all layouts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ops.common.errors import InputError

_HEAD = re.compile(r"(?:new_fc|fc|fc_action|last_linear|head\.fc|classifier(?:\.1)?)\.(weight|bias)")


def plain_key(key: str) -> str:
    """Key without the prefixes of DDP and torch.compile: "module._orig_mod.new_fc.bias" -> "new_fc.bias"."""
    parts = [part for part in key.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def canonical_key(key: str) -> str:
    """One name for a weight in every layout.

    "module.base_model.layer2.0.block.conv1.net.weight" -> "layer2.0.conv1.weight"; the classifier, be it `new_fc`,
    `base_model.fc` or `base_model.classifier`, is "head.weight" and "head.bias".
    """
    parts = [part for part in plain_key(key).split(".") if part not in ("net", "block")]
    if len(parts) > 1 and parts[0] == "base_model":
        del parts[0]
    name = ".".join(parts)
    head = _HEAD.fullmatch(name)
    return f"head.{head[1]}" if head else name


def index_by_name(keys: Iterable[str], owner: str) -> dict[str, str]:
    """Canonical name -> key; InputError where two keys have the same name."""
    index: dict[str, str] = {}
    for key in keys:
        name = canonical_key(key)
        if name in index:
            raise InputError(f"{owner} has two tensors for the same weight: {index[name]} and {key}")
        index[name] = key
    return index


def shifted_modules(keys: Iterable[str]) -> set[str]:
    """Canonical names of the modules that a shift or a temporal pool wraps: those with a `.net`."""
    shifted = set()
    for key in keys:
        parts = key.split(".")
        shifted |= {canonical_key(".".join(parts[:index])) for index, part in enumerate(parts) if part == "net"}
    return shifted
