"""Checkpoint files: read, written, described. Every file works in both directions with the published program.

A file is `{'epoch', 'arch', 'state_dict', 'optimizer', 'best_prec1', 'options', ...}`; the keys of its state_dict start
with `module.`, its options are `ModelOptions` as plain data. `weights.py` puts the weights into a network.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops.checkpoint.keys import canonical_key, shifted_modules
from ops.checkpoint.options import ModelOptions, options_from_name
from ops.common.errors import InputError, counted
from ops.common.files import atomic_path
from ops.common.modality import FRAME_CHANNELS

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Checkpoint:
    """A loaded file. `options` raises InputError where neither file nor name has any; `dataset` is None then."""

    path: Path
    state_dict: dict[str, Tensor]
    epoch: int | None = None
    best_prec1: float | None = None
    optimizer: dict[str, Any] | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    known_options: ModelOptions | None = None

    @property
    def options(self) -> ModelOptions:
        """Options that rebuild the network: the file's own, else those of its name or its folder's."""
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


# --- loading ----------------------------------------------------------------------------------------------------------


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a file of ours, a published one, or a bare state_dict, onto the CPU; nothing in it is run.

    Raises:
        InputError: no such file, not a checkpoint, damaged, code inside, or options that contradict its weights.
    """
    path = Path(path)
    weights, rest = _read_file(path), {}
    if isinstance(weights, Mapping) and isinstance(weights.get("state_dict"), Mapping):
        weights, rest = weights["state_dict"], weights
    if not isinstance(weights, Mapping) or not weights:
        raise InputError(f"{path} holds no state_dict; a checkpoint is a dict with one, or is one")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(f"{path} holds no state_dict, tensors by name: under {key!r} is {type(value).__name__}")
    epoch, best = rest.get("epoch"), rest.get("best_prec1")
    try:
        epoch = None if epoch is None else int(epoch)
        best = None if best is None else float(best)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: epoch or best_prec1 is not a number ({error})") from error
    known = ("state_dict", "epoch", "best_prec1", "optimizer", "options")
    extra = {key: value for key, value in rest.items() if key not in known}
    state_dict = {key: value.detach() for key, value in weights.items()}
    checkpoint = Checkpoint(path, state_dict, epoch, best, rest.get("optimizer"), extra)
    checkpoint.known_options = _find_options(checkpoint, rest.get("options"))
    return checkpoint


class _NumberType:
    """Takes numpy.dtype's place while a file is read, so that it can ask for numbers only."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biuf":
            raise ValueError(f"{code} is not a plain number")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: _NumberType, data: bytes | str) -> int | float | bool:
    """Takes the place of numpy's scalar constructor (old files hold `best_prec1` as float64)."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0].item()


_ALLOWED = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def _read_file(path: Path) -> Any:
    """What `torch.save` wrote, in its old or its zip format, as data only; numpy numbers become Python numbers.

    Raises:
        InputError: no such file, not a checkpoint, damaged, or it asks for anything but data.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    try:
        if zipfile.is_zipfile(path):
            _check_zip(path)
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside of old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # damaged files raise nearly every kind
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise InputError(
                f"{path} asks for {refused[1]}, which is code and not data: refused, and nothing was run"
            ) from error
        raise InputError(f"{path} is not a checkpoint of plain data, or it is cut short or damaged") from error


def _check_zip(path: Path) -> None:
    """Compare the checksums of a zip file's parts, which PyTorch does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            fits = sum(part.file_size for part in parts) <= path.stat().st_size
            # torch.serialization.set_crc32_options(False) writes zeros for all of them.
            bad = archive.testzip() if fits and any(part.CRC for part in parts) else None
    except Exception as error:  # zipfile raises half a dozen kinds for a damaged directory
        raise InputError(f"{path} is cut short or damaged: {error!r}") from error
    if not fits:
        raise InputError(f"{path} is damaged: its parts claim more data than it holds")
    if bad is not None:
        raise InputError(f"{path} is damaged: the checksum of its part {bad!r} does not match")


def _find_options(checkpoint: Checkpoint, recorded: Any) -> ModelOptions | None:
    """Options of the file, its name or its folder, completed from the weights and checked against them."""
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
    source = "its options say" if recorded is not None else "its name (or folder) says"
    if checkpoint.num_class not in (None, options.num_class):
        raise InputError(
            f"{path}: {source} {counted(options.num_class, 'class', 'classes')}, "
            f"its classifier has {checkpoint.num_class}"
        )
    if shifted_modules(checkpoint.state_dict) and not (options.is_shift or options.temporal_pool):
        raise InputError(
            f"{path}: {source} a network without temporal shift, but its keys are those of one with it "
            "(.net); rename it to the name that it was published under"
        )
    return options


def _complete(options: ModelOptions, checkpoint: Checkpoint) -> ModelOptions:
    """What a name does not say, but the weights do."""
    changes: dict[str, Any] = {}
    if checkpoint.num_class is not None:
        changes["num_class"] = checkpoint.num_class
        in_backbone = not any("new_fc" in key for key in checkpoint.state_dict)
        changes["dropout"] = 0.0 if in_backbone else options.dropout
    first_conv = next((value for value in checkpoint.state_dict.values() if value.dim() == 4), None)
    if first_conv is not None and options.modality != "RGB":
        changes["new_length"] = max(1, first_conv.shape[1] // FRAME_CHANNELS[options.modality])
    return dataclasses.replace(options, **changes)


# --- saving -----------------------------------------------------------------------------------------------------------


def save_checkpoint(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint, the whole of it or nothing. `state` holds plain data and tensors only.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; an older file there stays.
    """
    try:
        with atomic_path(path) as temp, temp.open("wb") as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as error:
                # The zip writer fails on closing what a full disk cut short, and hides the reason.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error} while writing; an older file stays") from error


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
    """Put back what `rng_state` gave; CUDA states only where there are as many devices."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    cuda = state.get("cuda", [])
    if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    elif cuda:
        logger.warning("random states of %d CUDA devices not restored: this machine has other devices", len(cuda))
