"""Weights of a file into a network and out of it: which key goes where, with every key accounted for."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from archs.mobilenet_v2 import from_torchvision
from ops.checkpoint.file import Checkpoint
from ops.checkpoint.keys import canonical_key, index_by_name, plain_key, shifted_modules
from ops.common.errors import InputError

logger = logging.getLogger(__name__)

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


def load_into(model: nn.Module, checkpoint: Checkpoint | Mapping[str, Tensor], *, new_head: bool = False) -> LoadReport:
    """Put the weights into a network of the same kind, wrapped (DDP, torch.compile) or not.

    `new_head` leaves the network's classifier as it is.

    Raises:
        InputError: naming the keys, where they do not fit; the network is then untouched.
    """
    if isinstance(checkpoint, Checkpoint):
        return fit_state_dict(model, checkpoint.state_dict, source=str(checkpoint.path), new_head=new_head)
    return fit_state_dict(model, checkpoint, source="the state_dict", new_head=new_head)


def same_dataset(checkpoint: Checkpoint, dataset: str, num_class: int | None = None) -> bool:
    """Whether it was trained on this data set (compared whole), with as many classes where given.

    Where true, fine-tuning keeps the classifier, and `fc_lr5` is off.
    """
    if checkpoint.dataset != dataset:
        return False
    return num_class is None or checkpoint.num_class in (None, num_class)


def check_dataset(checkpoint: Checkpoint, dataset: str, class_names: Sequence[str] | None, *, hint: str = "") -> None:
    """Refuse a checkpoint of another data set, whose scores would be of other classes.

    Args:
        class_names: of the data set, None where not known.
        hint: what to add to the message.

    Raises:
        InputError: naming both data sets, or the first class that the two call differently.
    """
    if checkpoint.dataset not in (None, dataset):
        raise InputError(f"{checkpoint.path} was trained on {checkpoint.dataset}, not on {dataset}{hint}")
    recorded = checkpoint.known_options.class_names if checkpoint.known_options else None
    for number, (theirs, ours) in enumerate(zip(recorded or [], class_names or [], strict=False)):
        if theirs != ours:
            raise InputError(
                f"{checkpoint.path} was trained with {theirs!r} as class {number}, which is {ours!r} in this data "
                f"set{hint}"
            )


def load_for_finetune(
    model: nn.Module, checkpoint: Checkpoint, *, dataset: str, num_class: int | None = None
) -> LoadReport:
    """Start a network from another one's weights (`--tune_from`): the backbone, and the head of the same data set.

    The shift may come or go, so may non-local blocks; a first convolution for another modality gets the mean over the
    file's input channels, repeated.

    Raises:
        InputError: naming the keys, where the backbones do not fit.
    """
    keep_head = same_dataset(checkpoint, dataset, num_class)
    before = checkpoint.known_options.modality if checkpoint.known_options else None
    now = getattr(getattr(model, "module", model), "modality", before)
    report = fit_state_dict(
        model,
        checkpoint.state_dict,
        source=str(checkpoint.path),
        new_head=not keep_head,
        fine_tune=True,
        average_first_conv=before == "RGB" and now != "RGB",
    )
    trained_on = checkpoint.dataset or "an unknown data set"
    report.notes.append(f"head {'kept' if keep_head else 'new'}: trained on {trained_on}, now {dataset}")
    return report


def published_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The network's weights in the published layout: keys start with `module.`, tensors are contiguous, on the CPU."""
    weights = {}
    for key, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        if value.untyped_storage().nbytes() > value.numel() * value.element_size():
            value = value.clone()  # torch.save writes whole storages
        weights[f"module.{plain_key(key)}"] = value
    return weights


def first_conv_name(net: nn.Module) -> str:
    """Name of the network's first convolution."""
    return next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))


def average_input_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weight for another modality: its mean over the input channels, repeated.

    (out, in, height, width) -> (out, channels, height, width); arXiv:1608.00859, sec. 3.2: cross-modality pre-training.
    """
    return weight.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1)


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
    ours = index_by_name(targets, f"the {type(model).__name__}")
    theirs = index_by_name(state_dict, source)

    def is_new(name: str) -> bool:
        return new_head and name.startswith("head.")

    def may_be_absent(name: str) -> bool:
        return is_new(name) or name.endswith(_COUNTER) or (fine_tune and ".nl." in name)

    values = {name: state_dict[theirs[name]] for name in ours if name in theirs and not is_new(name)}
    missing = [name for name in ours if name not in values]
    unknown = [name for name in theirs if name not in values]
    report.missing = [ours[name] for name in missing if may_be_absent(name)]
    report.skipped = [theirs[name] for name in unknown if may_be_absent(name)]
    if fine_tune:
        first_conv = canonical_key(f"{first_conv_name(model)}.weight")
        if first_conv in values:
            channels = targets[ours[first_conv]].shape[1]
            values[first_conv] = _adapt_first_conv(values[first_conv], channels, average_first_conv, report)
    misfits = _match(values, targets, ours, theirs, report)
    absent = [ours[name] for name in missing if not may_be_absent(name)]
    extra = [theirs[name] for name in unknown if not may_be_absent(name)]
    _refuse_misfits(f"{source} does not fit the {type(model).__name__}", absent, extra, misfits)
    if not fine_tune:
        _check_shift(state_dict, targets, report)
    with torch.no_grad():
        for name, value in values.items():
            targets[ours[name]].copy_(value)
    return report


def _adapt_first_conv(value: Tensor, channels: int, always: bool, report: LoadReport) -> Tensor:
    if value.dim() != 4 or (value.shape[1] == channels and not always):
        return value
    report.notes.append(f"first convolution: mean of {value.shape[1]} input channels, repeated {channels} times")
    return average_input_channels(value, channels)


def _match(
    values: dict[str, Tensor],
    targets: Mapping[str, Tensor],
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    report: LoadReport,
) -> list[str]:
    """Enter each of the file's values that fits its target into the report; describe those that do not."""
    misfits = []
    for name, value in values.items():
        old, new = theirs[name], ours[name]
        target = targets[new]
        if value.shape == (1, *target.shape):
            values[name] = value = value[0]  # BN parameters of converted Caffe networks are (1, C)
        if value.shape != target.shape or value.is_floating_point() != target.is_floating_point():
            misfits.append(f"{old} is {_describe(value)} in the file and {_describe(target)} in the network")
        elif plain_key(old) == plain_key(new):
            report.matched.append(new)
        else:
            report.remapped.append((old, new))
    return misfits


def _refuse_misfits(what: str, missing: list[str], unknown: list[str], misfits: list[str]) -> None:
    """Raise InputError if any of the lists has something in it."""
    problems = []
    if missing:
        problems.append(f"{len(missing)} of the network's tensors are not in the file ({_some(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} of the file's are not in the network ({_some(unknown)})")
    if misfits:
        problems.append(f"{len(misfits)} differ in shape: {_some(misfits)}")
    if problems:
        raise InputError(f"{what}: {'; '.join(problems)}")


def _check_shift(file: Iterable[str], network: Iterable[str], report: LoadReport) -> None:
    """Raise InputError for a shift at other places: such weights would load, and be wrong."""
    given, wanted = shifted_modules(file), shifted_modules(network)
    if given and wanted and given != wanted:
        raise InputError(
            f"{report.source}: its shift or temporal pool is at other places than the network's: "
            f"{_some(sorted(given ^ wanted))}; build the network with the options that the file was trained with"
        )
    if given and not wanted:
        note = "the file was trained with a temporal shift, and this network has none"
        report.notes.append(note)
        logger.warning("%s: %s", report.source, note)


def _describe(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def _some(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _NUM_NAMED} more" if len(items) > _NUM_NAMED else ""
    return ", ".join(items[:_NUM_NAMED]) + more
