"""What a checkpoint holds beyond the weights, so that a run continues exactly where it was."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from ops.checkpoint.file import Checkpoint, ModelOptions, load_checkpoint, same_dataset, set_rng_state
from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.training.epoch import EpochProgress

logger = logging.getLogger(__name__)

LATEST, BEST = "ckpt.pth.tar", "ckpt.best.pth.tar"

# name in a checkpoint -> what to call it on the command line
_FLAGS = {
    "is_shift": "--shift",
    "batch_size": "--batch-size",
    "lr": "--lr (after --auto_lr)",
    "weight_decay": "--weight-decay",
    "clip_norm": "--clip-gradient",
    "partial_bn": "partial BN (off with --no_partialbn)",
    "dataset": "data set",
    "modality": "modality",
    "num_train": "videos in the training list",
    "train_list": "checksum of the training list",
    "flip": "flips (off with --no_flip)",
    "new_length": "frames a segment",
}
_NETWORK = (
    "modality",
    "arch",
    "is_shift",
    "shift_div",
    "shift_place",
    "online",
    "temporal_pool",
    "non_local",
    "consensus_type",
    "new_length",
)


def changed_options(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Name the options that differ, each with both values; those that only one side knows are passed over."""
    changes = []
    for name, value in given.items():
        if name not in recorded or recorded[name] == value:
            continue
        changes.append(f"{_FLAGS.get(name, f'--{name}')} is {_shown(value)}, but was {_shown(recorded[name])}")
    return changes


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def network_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options, those that make another network; the shift's details count only with a shift."""
    shift_details = ("shift_div", "shift_place", "online")
    return {n: options[n] for n in _NETWORK if n in options and (n not in shift_details or options.get("is_shift"))}


def check_same_network(checkpoint: Checkpoint, options: Mapping[str, Any]) -> None:
    """Refuse weights of another kind of network, even where their shapes would fit.

    Raises:
        InputError: naming the options with both values.
    """
    if checkpoint.known_options is None:
        return
    changes = changed_options(network_options(checkpoint.known_options.to_dict()), network_options(options))
    if changes:
        raise InputError(f"{checkpoint.path} is of another network: {'; '.join(changes)}")


def check_resumable(checkpoint: Checkpoint, recorded: Mapping[str, Any]) -> None:
    """Refuse to continue with other options than a run began with, where they would change what it gives.

    Raises:
        InputError: naming the options with both values.
    """
    before = (checkpoint.extra.get("training") or {}).get("options")
    if not isinstance(before, Mapping):
        return  # a published file: only its name says something, and `check_same_network` has read that
    changes = changed_options(before, recorded)
    if changes:
        raise InputError(
            f"cannot continue {checkpoint.path}: {'; '.join(changes)}; "
            "--tune_from starts a new run from its weights, with any options"
        )


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: epochs completed.
        progress: the epoch under way, if any.
        best_prec1: best validation accuracy so far, in percent.
        unread: samples that could not be read so far, a message each.
        log: `RunLog.state()`.
    """

    epoch: int = 0
    progress: EpochProgress | None = None
    best_prec1: float = 0.0
    unread: list[str] = field(default_factory=list)
    log: dict[str, Any] | None = None


def read_position(checkpoint: Checkpoint, *, num_steps: int) -> Position:
    """Where the run of a checkpoint, ours or a published one, was.

    Raises:
        InputError: the file holds weights only, or a position that this run cannot have.
    """
    if checkpoint.epoch is None or checkpoint.optimizer is None:
        raise InputError(
            f"{checkpoint.path} holds weights, but no run to continue; --tune_from starts a new run from weights"
        )
    position = Position(checkpoint.epoch, best_prec1=checkpoint.best_prec1 or 0.0)
    training = checkpoint.extra.get("training")
    if training is None:  # a published file
        return position
    try:
        if training["progress"] is not None:
            position.progress = EpochProgress.from_state_dict(training["progress"])
            if not 0 <= position.progress.step <= num_steps:
                raise InputError(f"{checkpoint.path} is at step {position.progress.step} of an epoch of {num_steps}")
        position.unread = list(training["unread"])
        position.log = dict(training["log"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{checkpoint.path}: its record of the run is damaged ({error!r})") from error
    return position


def restore_optimizer(optimizer: Optimizer, checkpoint: Checkpoint) -> None:
    """Load momentum. The groups keep the command line's options; every step sets rate and decay anew, anyway.

    Raises:
        InputError: it is of other groups or other parameters.
    """
    from_file = ("params", "lr", "weight_decay")
    ours = [{key: value for key, value in group.items() if key not in from_file} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(checkpoint.optimizer)
        for group, kept in zip(optimizer.param_groups, ours, strict=True):
            group.update(kept)
            for parameter in group["params"]:
                momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
                if momentum is not None and momentum.shape != parameter.shape:
                    raise ValueError(f"momentum of shape {tuple(momentum.shape)} for weights {tuple(parameter.shape)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{checkpoint.path}: its optimizer state does not fit this run: {error}") from error


def restore_random_state(checkpoint: Checkpoint, process: Process, scaler: torch.amp.GradScaler | None) -> None:
    """Put back the loss scale and this process's random generators, as far as the file has them.

    Raises:
        InputError: they are damaged.
    """
    training = checkpoint.extra.get("training") or {}
    try:
        if scaler is not None and training.get("scaler"):
            scaler.load_state_dict(training["scaler"])
        states = training.get("rng") or []
        if len(states) == process.world_size:
            set_rng_state(states[process.rank])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{checkpoint.path}: its record of the run is damaged ({error!r})") from error


def find_checkpoint(resume: str, model_folder: Path, *, needed: bool) -> Checkpoint | None:
    """The checkpoint that `--resume FILE|auto` means; None for none, or for `auto` where there is none yet.

    Raises:
        InputError: no such file, or not a checkpoint.
    """
    latest = model_folder / LATEST
    if resume == "auto" and not needed and not latest.exists():
        logger.info("--resume auto: no %s yet, starting anew", latest)
        return None
    return load_checkpoint(latest if resume == "auto" else resume) if resume else None


def learns_head_faster(
    resumed: Checkpoint | None, tuned: Checkpoint | None, options: ModelOptions, *, no_fc_lr5: bool = False
) -> bool:
    """fc_lr5: on, unless asked not to or fine-tuning from a checkpoint of the same data set.

    A resumed run keeps what it had; `no_fc_lr5` then differs from a recorded True, as any other changed option.
    """
    if no_fc_lr5:
        return False
    if resumed is not None:
        recorded = (resumed.extra.get("training") or {}).get("options") or {}
        return bool(recorded.get("fc_lr5", True))
    return tuned is None or not same_dataset(tuned, options.dataset, options.num_class)
