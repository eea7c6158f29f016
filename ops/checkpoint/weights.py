"""Putting a file's weights into a network: which key goes where, with every key accounted for."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from archs.mobilenet_v2 import from_torchvision
from ops.common.errors import InputError

logger = logging.getLogger(__name__)

_HEAD = re.compile(r"(?:new_fc|fc|fc_action|last_linear|classifier(?:\.\d+)?)\.(weight|bias)")
_NUM_NAMED = 4  # keys named in a message; the rest are counted
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass
class LoadReport:
    """What became of every key: each of the file's is loaded or skipped, each of the network's is loaded or missing.

    `matched`: loaded under the same name (wrapper prefixes aside). `remapped`: (key in the file, key in the network).
    `skipped`: in the file, not used. `missing`: in the network, kept as it was. `notes`: changes made on the way.
    """

    source: str
    matched: list[str] = dataclasses.field(default_factory=list)
    remapped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        counters = [key for key in self.missing if key.endswith(_COUNTER)]
        missing = [key for key in self.missing if not key.endswith(_COUNTER)]
        lines = [
            f"{self.source}: {len(self.matched)} matched, {len(self.remapped)} remapped, "
            f"{len(self.skipped)} skipped, {len(self.missing)} missing"
        ]
        if self.remapped:
            lines.append("  remapped: " + _some(f"{old} -> {new}" for old, new in self.remapped))
        if self.skipped:
            lines.append("  skipped (in the file, not used): " + _some(self.skipped))
        if missing:
            lines.append("  missing (not in the file, left as initialised): " + _some(missing))
        if counters:
            lines.append(f"  missing, without effect: {len(counters)} {_COUNTER} (files of PyTorch before 0.4.1)")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def plain_key(key: str) -> str:
    """Key without what DDP, torch.compile and TSN wrap around the network: "module._orig_mod.new_fc.bias"."""
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


def shifted_modules(keys: Iterable[str]) -> set[str]:
    """Canonical names of the modules that a shift or a temporal pool wraps: those with a `.net`."""
    shifted = set()
    for key in keys:
        parts = key.split(".")
        for index, part in enumerate(parts):
            if part == "net":
                shifted.add(canonical_key(".".join(parts[:index])))
    return shifted


def fit_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    source: str,
    new_head: bool = False,
    fine_tune: bool = False,
    average_first_conv: bool = False,
) -> LoadReport:
    """Copy the weights into `model` in place, or refuse and leave it untouched.

    `new_head`: the network keeps its own classifier. `fine_tune`: the shift may come or go, non-local blocks too, and
    a first convolution for another number of channels gets the file's mean over input channels, repeated;
    `average_first_conv` asks for that mean even where the number is the same (RGB to a one-frame RGBDiff).

    Raises:
        InputError: naming the keys, where the rest of the two networks differs in keys, shapes or place of the shift.
    """
    report = LoadReport(source)
    state_dict = from_torchvision(dict(state_dict))
    targets = model.state_dict()
    ours = _index(targets, f"the {type(model).__name__}")
    theirs = _index(state_dict, source)
    first_conv = _first_conv_key(model)
    copies: list[tuple[Tensor, Tensor]] = []
    misfits: list[str] = []
    missing: list[str] = []
    for name, key in ours.items():
        if new_head and name.startswith("head."):
            report.missing.append(key)
            continue
        if name not in theirs:
            optional = name.endswith(_COUNTER) or (fine_tune and ".nl." in name)
            (report.missing if optional else missing).append(key)
            continue
        old_key, target = theirs[name], targets[key]
        value = state_dict[old_key]
        if name == first_conv and fine_tune:
            value = _adapt_first_conv(value, target, average_first_conv, report)
        if value.shape == (1, *target.shape):
            value = value[0]  # BN parameters of converted Caffe networks are (1, C)
        if value.shape != target.shape or value.is_floating_point() != target.is_floating_point():
            misfits.append(f"{old_key} is {_describe(value)} in the file and {_describe(target)} in the network")
            continue
        copies.append((target, value))
        if plain_key(old_key) == plain_key(key):
            report.matched.append(key)
        else:
            report.remapped.append((old_key, key))

    unknown: list[str] = []
    for name, old_key in theirs.items():
        if name in ours and not (new_head and name.startswith("head.")):
            continue
        optional = name.endswith(_COUNTER) or (new_head and name.startswith("head.")) or (fine_tune and ".nl." in name)
        (report.skipped if optional else unknown).append(old_key)
    _refuse(model, source, missing, unknown, misfits)
    if not fine_tune:
        _check_shift(state_dict, targets, source, report)
    with torch.no_grad():
        for target, value in copies:
            target.copy_(value)
    return report


def _index(keys: Iterable[str], owner: str) -> dict[str, str]:
    """Canonical name -> key, for keys that have only one each."""
    index: dict[str, str] = {}
    for key in keys:
        name = canonical_key(key)
        if name in index:
            raise InputError(f"{owner} has two tensors for the same weight: {index[name]} and {key}")
        index[name] = key
    return index


def _check_shift(file: Iterable[str], network: Iterable[str], source: str, report: LoadReport) -> None:
    """Weights trained with the shift at other places would load and be wrong."""
    given, wanted = shifted_modules(file), shifted_modules(network)
    if given and wanted and given != wanted:
        odd = sorted(given ^ wanted)
        raise InputError(
            f"{source}: its shift or temporal pool sits at other places than the network's: {_some(odd)}; "
            "build the network with the options that the file was trained with"
        )
    if given and not wanted:
        note = "the file was trained with a temporal shift, and this network has none"
        report.notes.append(note)
        logger.warning("%s: %s", source, note)


def _first_conv_key(model: nn.Module) -> str | None:
    """Canonical key of the first convolution's weight, None where there is no convolution."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return canonical_key(f"{name}.weight")
    return None


def _adapt_first_conv(value: Tensor, target: Tensor, always: bool, report: LoadReport) -> Tensor:
    """Mean over the input channels, repeated (arXiv:1608.00859, sec. 3.2: cross-modality pre-training)."""
    if value.dim() != 4 or target.dim() != 4 or (value.shape[1] == target.shape[1] and not always):
        return value
    report.notes.append(f"first convolution: mean of {value.shape[1]} input channels, repeated {target.shape[1]} times")
    return value.mean(dim=1, keepdim=True).expand(-1, target.shape[1], -1, -1)


def _refuse(model: nn.Module, source: str, missing: list[str], unknown: list[str], misfits: list[str]) -> None:
    problems = []
    if missing:
        problems.append(f"{len(missing)} of the network's tensors are not in the file ({_some(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} of the file's are not in the network ({_some(unknown)})")
    if misfits:
        problems.append(f"{len(misfits)} differ in shape: {_some(misfits)}")
    if problems:
        raise InputError(f"{source} does not fit the {type(model).__name__}: {'; '.join(problems)}")


def _describe(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def _some(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _NUM_NAMED} more" if len(items) > _NUM_NAMED else ""
    return ", ".join(items[:_NUM_NAMED]) + more
