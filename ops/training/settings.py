"""What a run was asked for: one frozen object, made once from the command line and handed down whole."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.checkpoint.options import ModelOptions, store_name
from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.dataset import TSNDataSet
from ops.dataset_config import DatasetPaths
from ops.training.schedule import Schedule, scaled_lr

_MIN_BN_CLIPS = 8
# Published: lr 0.02 for batches of 128 (8 GPUs x 16 clips), scaled linearly with the batch.
_USUAL_LR, _USUAL_BATCH, _MUCH = 0.02, 128, 10


@dataclass(frozen=True)
class Settings:
    """The options of a training run, named and explained as in `ops/opts.py`; the defaults are for tests.

    Attributes:
        options: the network and its data pipeline, as checkpoints record them.
        schedule: learning rates (--auto_lr applied) and the number of epochs.
        log_folder, model_folder: where logs and checkpoints of this run go.
        batch_size: of the whole job.
        clip_norm: largest norm of the gradient of all parameters together; None does not clip.
        fc_lr5: whether the classifier learns five times faster; decided when the checkpoints are known.
        loss_weights: weight of each class in the training loss, as --class_weights makes them; None: all count as 1.
    """

    options: ModelOptions
    schedule: Schedule
    log_folder: Path = Path("log")
    model_folder: Path = Path("checkpoint")
    batch_size: int = 128
    accum_steps: int = 1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    partial_bn: bool = True
    sync_bn: bool = False
    no_fc_lr5: bool = False
    fc_lr5: bool = True
    class_weights: str = ""
    loss_weights: tuple[float, ...] | None = None
    amp: str = "none"
    compile: bool = False
    channels_last: bool = True
    seed: int = 0
    pretrain: str = "imagenet"
    tune_from: str | None = None
    resume: str = ""
    evaluate: bool = False
    start_epoch: int = 0
    workers: int = 0
    image_backend: str = "torchvision"
    io: str = "frames"
    on_error: str = "raise"
    eval_freq: int = 5
    print_freq: int = 20
    save_every: int | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace, paths: DatasetPaths) -> Settings:
        """The settings of a main.py command line, for the data set that it names."""
        options = _model_options(args, paths)
        name = args.store_name or store_name(
            options, epochs=args.epochs, pretrain=args.pretrain or "none", lr_type=args.lr_type, suffix=args.suffix
        )
        if Path(name).name != name:
            raise InputError(f"--store_name {name!r} must be the name of a folder, without slashes")
        lr = scaled_lr(args.lr, args.batch_size, args.auto_lr)
        as_given = {field.name: getattr(args, field.name) for field in dataclasses.fields(cls) if field.name in args}
        return cls(
            options=options,
            schedule=Schedule(lr, args.lr_type, args.lr_steps, args.epochs, args.warmup_epochs),
            log_folder=Path(args.root_log) / name,
            model_folder=Path(args.root_model) / name,
            clip_norm=args.clip_gradient,
            partial_bn=not args.no_partialbn,
            channels_last=args.memory_format != "contiguous",
            **as_given,
        )

    @property
    def from_scratch(self) -> bool:
        """Whether the network begins with random weights."""
        return self.pretrain in ("", "none") and not self.tune_from

    def recorded(self, train_set: TSNDataSet) -> dict[str, Any]:
        """The options, and the training list, that change what training gives: a resumed run must have the same."""
        recorded = self.options.to_dict()
        for name in ("class_names", "image_tmpl", "frame_rate"):
            recorded.pop(name, None)
        if not self.options.is_shift:
            for name in ("shift_div", "shift_place", "online"):
                del recorded[name]
        same_name = ("batch_size", "accum_steps", "momentum", "weight_decay", "clip_norm", "partial_bn", "sync_bn")
        same_name += ("amp", "seed", "image_backend", "io", "fc_lr5")
        recorded |= {name: getattr(self, name) for name in same_name}
        recorded["class_weights"] = None if self.loss_weights is None else list(self.loss_weights)
        schedule = self.schedule
        recorded |= {"lr": schedule.lr, "lr_type": schedule.lr_type, "warmup_epochs": schedule.warmup_epochs}
        recorded |= {"num_train": len(train_set), "train_list": train_set.checksum}
        # How long the run is matters to the cosine only; a step schedule may be extended.
        if schedule.lr_type == "cos":
            return recorded | {"epochs": schedule.epochs}
        return recorded | {"lr_steps": list(schedule.lr_steps)}


def _model_options(args: argparse.Namespace, paths: DatasetPaths) -> ModelOptions:
    return ModelOptions(
        dataset=args.dataset,
        modality=args.modality,
        arch=args.arch,
        num_segments=args.num_segments,
        num_class=paths.num_classes,
        consensus_type=args.consensus_type,
        is_shift=args.shift,
        shift_div=args.shift_div,
        shift_place=args.shift_place,
        online=args.online,
        temporal_pool=args.temporal_pool,
        non_local=args.non_local,
        dropout=args.dropout,
        input_size=args.input_size,
        dense_sample=args.dense_sample,
        image_tmpl=paths.image_tmpl,
        class_names=paths.class_names,
        flip=paths.flip and not args.no_flip,
    )


def training_advice(settings: Settings, process: Process) -> list[str]:
    """A line for each combination of options that trains, but badly."""
    advice = []
    num_devices = max(process.world_size, len(process.devices))
    can_sync = process.world_size > 1 and process.device.type == "cuda"
    synced = settings.sync_bn and can_sync
    bn_clips = max(1, settings.batch_size // settings.accum_steps // (1 if synced else num_devices))
    if not settings.partial_bn and bn_clips < _MIN_BN_CLIPS:
        remedies = ["a larger --batch-size"]
        remedies += ["--sync_bn"] if can_sync and not synced else []
        remedies += [] if settings.from_scratch else ["no --npb, to keep the pretrained network's"]
        advice.append(
            f"each batch norm sees {counted(bn_clips, 'clip')} at a time, too few for good statistics: "
            f"try {' or '.join(remedies)}"
        )
    if settings.partial_bn and settings.from_scratch:
        advice.append("partial BN keeps the statistics of a network that has none yet: use --npb to train from scratch")
    lr, usual = settings.schedule.lr, _USUAL_LR * settings.batch_size / _USUAL_BATCH
    if lr > _MUCH * usual:
        advice.append(
            f"--lr {lr:g} is {lr / usual:.0f} times the published rate for batches of {settings.batch_size}, "
            f"{usual:g}; --auto_lr {_USUAL_BATCH} scales a rate for {_USUAL_BATCH} to yours"
        )
    return advice
