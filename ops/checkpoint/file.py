"""Checkpoints: save, load, and put into a network. Every file works in both directions with the published program.

A file is `{'epoch', 'arch', 'state_dict', 'optimizer', 'best_prec1', 'options', ...}`; the keys of its state_dict start
with `module.`, its options are `ModelOptions` as plain data. Names and options: `checkpoint_names.py`; what goes where:
`checkpoint_fit.py`; reading strangers' files: `checkpoint_read.py`.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ops.checkpoint.options import ModelOptions, options_from_name, store_name
from ops.checkpoint.read import checked_state_dict, read_file
from ops.checkpoint.weights import LoadReport, canonical_key, fit_state_dict, plain_key, shifted_modules
from ops.common.errors import InputError, counted
from ops.common.files import atomic_path

__all__ = [
    "Checkpoint",
    "LoadReport",
    "ModelOptions",
    "load_checkpoint",
    "load_for_finetune",
    "load_into",
    "options_from_name",
    "published_state_dict",
    "rng_state",
    "same_dataset",
    "save_checkpoint",
    "save_state_dict",
    "set_rng_state",
    "store_name",
]

logger = logging.getLogger(__name__)

_FRAME_CHANNELS = {"Flow": 2, "RGBDiff": 3}


@dataclasses.dataclass
class Checkpoint:
    """A loaded file. `options` raises InputError where neither file nor name tells them; `dataset` is None then."""

    path: Path
    state_dict: dict[str, Tensor]
    epoch: int | None = None
    best_prec1: float | None = None
    optimizer: dict[str, Any] | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    known_options: ModelOptions | None = None

    @property
    def options(self) -> ModelOptions:
        """Options that rebuild the network: the file's own, else those of its name."""
        if self.known_options is None:
            return options_from_name(self.path)  # raises, and says what would help
        return self.known_options

    @property
    def dataset(self) -> str | None:
        """Name of the data set it was trained on, where known."""
        return self.known_options.dataset if self.known_options else None

    @property
    def num_class(self) -> int | None:
        """Rows of the classifier, None for a file without one."""
        for key, value in self.state_dict.items():
            if value.dim() == 1 and canonical_key(key) == "head.bias":
                return len(value)
        return None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a file of ours, a published one, or a bare state_dict, onto the CPU; nothing in it is run.

    Raises:
        InputError: no such file, not a checkpoint, damaged, code inside, or options that contradict its weights.
    """
    path = Path(path)
    data = read_file(path)
    state_dict = checked_state_dict(path, data)
    rest = data if isinstance(data.get("state_dict"), Mapping) else {}
    best = rest.get("best_prec1")
    epoch = rest.get("epoch")
    optimizer = rest.get("optimizer")
    try:
        best = None if best is None else float(best)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: best_prec1 is not a number") from error
    if epoch is not None and (not isinstance(epoch, int) or epoch < 0):
        raise InputError(f"{path}: epoch is not a count")
    if optimizer is not None and not isinstance(optimizer, dict):
        raise InputError(f"{path}: optimizer is not a dict")
    known = ("state_dict", "epoch", "best_prec1", "optimizer", "options")
    extra = {key: value for key, value in rest.items() if isinstance(key, str) and key not in known}
    checkpoint = Checkpoint(path, state_dict, epoch, best, optimizer, extra)
    checkpoint.known_options = _find_options(checkpoint, rest.get("options"))
    return checkpoint


def _find_options(checkpoint: Checkpoint, recorded: Any) -> ModelOptions | None:
    """Options of the file or its name, completed from the weights and checked against them."""
    path = checkpoint.path
    try:
        if recorded is not None:
            options = ModelOptions.from_dict(recorded)
            if options.num_class is None:
                options = dataclasses.replace(options, num_class=checkpoint.num_class)
        else:
            options = _complete(options_from_name(path), checkpoint)
    except InputError as error:
        if recorded is None:
            return None
        raise InputError(f"{path}: {error}") from error
    source = "its options say" if recorded is not None else "its name says"
    if checkpoint.num_class not in (None, options.num_class):
        raise InputError(
            f"{path}: {source} {counted(options.num_class, 'class', 'classes')}, "
            f"its classifier has {checkpoint.num_class}"
        )
    if shifted_modules(checkpoint.state_dict) and not (options.is_shift or options.temporal_pool):
        raise InputError(
            f"{path}: {source} a network without temporal shift, but its keys are those of one with it "
            "(.net); give the file back the name that it was published under"
        )
    return options


def _complete(options: ModelOptions, checkpoint: Checkpoint) -> ModelOptions:
    """What a name does not tell, but the weights do."""
    changes: dict[str, Any] = {}
    if checkpoint.num_class is not None:
        changes["num_class"] = checkpoint.num_class
        in_backbone = not any("new_fc" in key for key in checkpoint.state_dict)
        changes["dropout"] = 0.0 if in_backbone else options.dropout
    first_conv = next((value for value in checkpoint.state_dict.values() if value.dim() == 4), None)
    per_frame = _FRAME_CHANNELS.get(options.modality)
    if first_conv is not None and per_frame and first_conv.shape[1] % per_frame == 0:
        changes["new_length"] = first_conv.shape[1] // per_frame
    return dataclasses.replace(options, **changes)


def load_into(model: nn.Module, checkpoint: Checkpoint | Mapping[str, Tensor], *, new_head: bool = False) -> LoadReport:
    """Put the weights into a network of the same kind, wrapped (DDP, torch.compile) or not.

    `new_head` leaves the network's classifier as it is.

    Raises:
        InputError: naming the keys, where they do not fit; the network is then untouched.
    """
    source, state_dict = _unpack(checkpoint)
    return fit_state_dict(model, state_dict, source=source, new_head=new_head)


def same_dataset(checkpoint: Checkpoint, dataset: str, num_class: int | None = None) -> bool:
    """Whether it was trained on this data set (compared whole), with as many classes where given.

    Where true, fine-tuning keeps the classifier, and `fc_lr5` is off.
    """
    if checkpoint.dataset != dataset:
        return False
    return num_class is None or checkpoint.num_class in (None, num_class)


def load_for_finetune(
    model: nn.Module, checkpoint: Checkpoint, *, dataset: str, num_class: int | None = None
) -> LoadReport:
    """Start a network from another one's weights (`--tune_from`): the backbone, and the head of the same data set.

    The shift may come or go, so may non-local blocks; a first convolution for another modality gets the mean over the
    file's input channels, repeated.

    Raises:
        InputError: naming the keys, where the backbones do not fit.
    """
    source, state_dict = _unpack(checkpoint)
    keep_head = same_dataset(checkpoint, dataset, num_class)
    before = checkpoint.known_options.modality if checkpoint.known_options else None
    now = getattr(getattr(model, "module", model), "modality", before)
    report = fit_state_dict(
        model,
        state_dict,
        source=source,
        new_head=not keep_head,
        fine_tune=True,
        average_first_conv=before == "RGB" and now != "RGB",
    )
    trained_on = checkpoint.dataset or "an unknown data set"
    report.notes.append(f"head {'kept' if keep_head else 'new'}: trained on {trained_on}, now {dataset}")
    return report


def _unpack(checkpoint: Checkpoint | Mapping[str, Tensor]) -> tuple[str, Mapping[str, Tensor]]:
    if isinstance(checkpoint, Checkpoint):
        return str(checkpoint.path), checkpoint.state_dict
    return "the state_dict", checkpoint


def published_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The network's weights in the published layout: keys start with `module.`, tensors are contiguous, on the CPU."""
    weights = {}
    for key, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        if value.untyped_storage().nbytes() > value.numel() * value.element_size():
            value = value.clone()  # torch.save writes whole storages
        weights[f"module.{plain_key(key)}"] = value
    return weights


def save_checkpoint(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint, the whole of it or nothing. `state` holds plain data and tensors only, `state_dict` at least.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; an older file there stays.
        TypeError: a value that `load_checkpoint` would refuse to read.
    """
    if "state_dict" not in state:
        raise TypeError("a checkpoint needs a state_dict")
    _check_plain(state, "checkpoint")
    _write(dict(state), path)


def save_state_dict(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write bare weights, as `save_checkpoint` writes a checkpoint."""
    _check_plain(state_dict, "state_dict")
    _write(dict(state_dict), path)


def _write(data: dict[str, Any], path: str | Path) -> None:
    try:
        with atomic_path(path) as temp, temp.open("wb") as file:
            try:
                torch.save(data, file)
            except RuntimeError as error:
                # The zip writer fails on closing what a full disk cut short, and hides the reason.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error} while writing; an older file stays") from error


def _check_plain(value: Any, where: str) -> None:
    """A file that cannot be read back is worse than none: say so while the run still lives."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in (int, float, bool, str, bytes, type(None)) and not isinstance(value, Tensor):
        raise TypeError(f"{where} is {type(value).__name__}, not plain data")


def rng_state() -> dict[str, Any]:
    """States of the random generators of Python, numpy, torch and every CUDA device, as plain data and tensors."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put back what `rng_state` gave; CUDA states only where there are as many devices.

    Raises:
        InputError: not such a state.
    """
    try:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        cuda = state.get("cuda", [])
        if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(cuda)
        elif cuda:
            logger.warning("random states of %d CUDA devices not restored: other devices here", len(cuda))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise InputError(f"the checkpoint's random states are damaged: {error}") from error
