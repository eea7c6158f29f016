"""Train TSM or TSN: options -> data, model, engine."""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ops.checkpoint.file import Checkpoint, ModelOptions, load_checkpoint, store_name
from ops.common.distributed import Process, check_amp, init_from_env, lost_processes, shut_down, sync_batch_norm
from ops.common.errors import run_command
from ops.common.signals import StopSignals
from ops.data.loader import make_loader
from ops.dataset import TSNDataSet
from ops.dataset_configs import DataOptions, DatasetPaths, resolve_dataset
from ops.network.compiling import compile_errors
from ops.network.memory_format import to_channels_last
from ops.opts import parse_train_args
from ops.training.advice import training_advice
from ops.training.log import RunLog
from ops.training.progress import StopRequestedError
from ops.training.report import check_plots, say_stopped, say_where, write_plots
from ops.training.resume import (
    Position,
    check_resumable,
    check_writable,
    find_checkpoint,
    learns_head_faster,
    read_position,
    restore_optimizer,
    restore_random_state,
    run_folder,
)
from ops.training.run import Run, RunSettings
from ops.training.schedule import Schedule, scaled_lr
from ops.training.setup import Networks, build_network, open_dataset, set_up_torch
from ops.transforms import ClipNormalize
from pretrained.table import local_path

logger = logging.getLogger("main")


def main(argv: Sequence[str] | None = None) -> int | None:
    args = parse_train_args(argv)
    set_up_torch(args.seed, deterministic=args.deterministic)
    process = init_from_env(args.gpus)
    logging.basicConfig(level=logging.INFO if process.is_main else logging.ERROR, format="%(message)s")
    try:
        check_amp(args.amp, process, "main.py")
        with compile_errors(args.compile), lost_processes(process):
            return train(args, process)
    finally:
        shut_down()


def train(args: argparse.Namespace, process: Process) -> int | None:
    """Build what the options say, then train it or (`--evaluate`) only validate it; returns the exit status."""
    data = resolve_dataset(
        args.dataset,
        args.modality,
        DataOptions(
            root_dataset=args.root_dataset,
            root_path=args.root_path,
            train_list=args.train_list,
            val_list=args.val_list,
            num_class=args.num_class,
            image_tmpl=args.image_tmpl,
            split=args.split,
            io=args.io,
        ),
    )
    options = model_options(args, data)
    name = args.store_name or store_name(
        options, epochs=args.epochs, pretrain=args.pretrain or "none", lr_type=args.lr_type, suffix=args.suffix
    )
    log_folder, model_folder = run_folder(args.root_log, name), run_folder(args.root_model, name)
    open_set = functools.partial(
        open_dataset,
        data,
        options,
        io=args.io,
        image_backend=args.image_backend,
        seed=args.seed,
        allow_outside=args.allow_outside,
        on_error=args.on_error,
    )
    val_set = open_set(training=False)
    train_set = val_set if args.evaluate else open_set(training=True)
    if process.is_main and not args.evaluate:
        check_writable(log_folder, "see --root_log")
        check_writable(model_folder, "see --root_model")
    if process.is_main and args.plots:
        check_plots(args.plots)
    train_loader = loader(args, train_set, process, training=True)
    num_steps = len(train_loader)

    resumed = find_checkpoint(args.resume, model_folder, needed=args.evaluate)
    tuned = load_checkpoint(local_path(args.tune_from)) if args.tune_from and resumed is None else None
    fc_lr5 = learns_head_faster(resumed, tuned, options, no_fc_lr5=args.no_fc_lr5)
    recorded = recorded_options(args, options, train_set=train_set, fc_lr5=fc_lr5)
    if resumed is not None and not args.evaluate:
        check_resumable(resumed, recorded)
    model = build_network(
        options,
        resumed,
        tuned,
        pretrain=args.pretrain,
        partial_bn=not args.no_partialbn,
        fc_lr5=fc_lr5,
        verbose=process.is_main,
    )
    channels_last = args.memory_format != "contiguous"
    model.to(process.device)
    if channels_last:
        to_channels_last(model)
    if args.sync_bn:
        model = sync_batch_norm(model, process)
    optimizer = torch.optim.SGD(
        model.get_optim_policies(), args.lr, momentum=args.momentum, weight_decay=args.weight_decay
    )
    scaler = torch.amp.GradScaler(process.device.type) if args.amp == "fp16" else None
    position = Position(epoch=args.start_epoch)
    if resumed is not None and not args.evaluate:
        position = read_position(resumed, num_steps=num_steps)
        restore_optimizer(optimizer, resumed)
    stop = StopSignals()
    run = Run(
        Networks.wrap(model, process, compiled=args.compile),
        optimizer,
        train_loader,
        loader(args, val_set, process, training=False),
        train_set=train_set,
        val_set=val_set,
        schedule=Schedule(recorded["lr"], args.lr_type, args.lr_steps, args.epochs, args.warmup_epochs),
        settings=run_settings(args),
        normalize=ClipNormalize(**model.normalization, channels_last=channels_last),
        scaler=scaler,
        process=process,
        log=open_log(args, process, log_folder, position, resumed),
        stop=stop,
        model_folder=model_folder,
        options=options,
        recorded=recorded,
        position=position,
        num_steps=num_steps,
    )
    try:
        with stop:
            if args.evaluate:
                run.validate()
            else:
                say_where(position, args.epochs, resumed, model_folder)
                for line in advice(args, process, recorded):
                    logger.warning("Warning: %s", line)
                # Each process draws its own dropout masks; a resumed one gets its own random state back, last of all.
                torch.manual_seed(args.seed + process.rank + 1000 * position.epoch)
                if resumed is not None:
                    restore_random_state(resumed, process, scaler)
                if not run.fit():
                    say_stopped(stop, position, num_steps, model_folder)
                    return stop.exit_status
    except StopRequestedError:
        return stop.exit_status
    finally:
        run.log.close()
    if args.plots and process.is_main:
        epochs_file = None if args.evaluate else log_folder / "epochs.csv"
        write_plots(Path(args.plots), epochs_file, run.last_validation, options.class_names)
    return None


# --- options ----------------------------------------------------------------------------------------------------------


def model_options(args: argparse.Namespace, data: DatasetPaths) -> ModelOptions:
    """What a checkpoint of this run records about its network and data."""
    return ModelOptions(
        dataset=args.dataset,
        modality=args.modality,
        arch=args.arch,
        num_segments=args.num_segments,
        num_class=data.num_classes,
        consensus_type=args.consensus_type,
        is_shift=args.shift,
        shift_div=args.shift_div,
        shift_place=args.shift_place,
        online=args.online,
        temporal_pool=args.temporal_pool,
        non_local=args.non_local,
        dropout=args.dropout,
        img_feature_dim=args.img_feature_dim,
        input_size=args.input_size,
        dense_sample=args.dense_sample,
        image_tmpl=data.image_tmpl,
        class_names=data.class_names,
        flip=data.flip and not args.no_flip,
    )


def recorded_options(
    args: argparse.Namespace, options: ModelOptions, *, train_set: TSNDataSet, fc_lr5: bool
) -> dict[str, Any]:
    """The options that change what training gives: a resumed run must have the same."""
    recorded = options.to_dict()
    for name in ("class_names", "image_tmpl", "img_feature_dim"):
        del recorded[name]
    if not args.shift:
        for name in ("shift_div", "shift_place", "online"):
            del recorded[name]
    recorded |= {
        "batch_size": args.batch_size,
        "accum_steps": args.accum_steps,
        "lr": scaled_lr(args.lr, args.batch_size, args.auto_lr),
        "lr_type": args.lr_type,
        "warmup_epochs": args.warmup_epochs,
        "momentum": args.momentum,
        "weight_decay": args.weight_decay,
        "clip_norm": args.clip_gradient,
        "partial_bn": not args.no_partialbn,
        "sync_bn": args.sync_bn,
        "amp": args.amp,
        "seed": args.seed,
        "image_backend": args.image_backend,
        "io": args.io,
        "num_train": len(train_set),
        "train_list": train_set.checksum,
        "fc_lr5": fc_lr5,
    }
    # How long the run is matters to the cosine only; a step schedule may be extended.
    return recorded | ({"epochs": args.epochs} if args.lr_type == "cos" else {"lr_steps": list(args.lr_steps)})


def run_settings(args: argparse.Namespace) -> RunSettings:
    return RunSettings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        weight_decay=args.weight_decay,
        eval_freq=args.eval_freq,
        print_freq=args.print_freq,
        save_every=args.save_every,
        clip_norm=args.clip_gradient,
        accum_steps=args.accum_steps,
        amp=args.amp,
        on_nan=args.on_nan,
        on_error=args.on_error,
    )


def advice(args: argparse.Namespace, process: Process, recorded: dict[str, Any]) -> list[str]:
    return training_advice(
        dataset=args.dataset,
        is_shift=args.shift,
        from_scratch=args.pretrain in ("", "none") and not args.tune_from,
        partial_bn=not args.no_partialbn,
        sync_bn=args.sync_bn,
        batch_size=args.batch_size,
        num_devices=max(process.world_size, len(process.devices)),
        accum_steps=args.accum_steps,
        can_sync=process.world_size > 1 and process.device.type == "cuda",
        num_train=recorded["num_train"],
        lr=recorded["lr"],
        lr_type=args.lr_type,
        lr_steps=args.lr_steps,
        epochs=args.epochs,
        warmup_epochs=args.warmup_epochs,
    )


# --- data and log -----------------------------------------------------------------------------------------------------


def loader(args: argparse.Namespace, dataset: TSNDataSet, process: Process, *, training: bool) -> DataLoader:
    return make_loader(
        dataset,
        batch_size=args.batch_size,
        workers=process.share_workers(args.workers),
        shuffle=training,
        seed=args.seed,
        process=process,
        drop_last=training,
    )


def open_log(
    args: argparse.Namespace, process: Process, folder: Path, position: Position, resumed: Checkpoint | None
) -> RunLog:
    if args.evaluate or not process.is_main:
        return RunLog(None, echo=process.is_main)
    log = RunLog(folder, resume=position.log)
    note = "new run" if resumed is None else f"resumed from {resumed.path}"
    log.describe(vars(args), note, device=str(process))
    return log


if __name__ == "__main__":
    run_command(main)
