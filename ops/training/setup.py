"""From the command line to a `Run`: checked data sets, a network with its first weights, an optimiser, logs."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import random
import shlex
from pathlib import Path

import numpy as np
import torch

from ops.checkpoint.file import Checkpoint, load_checkpoint
from ops.checkpoint.weights import check_dataset, load_for_finetune, load_into
from ops.common.distributed import Process, sync_batch_norm
from ops.common.errors import InputError, counted
from ops.common.files import check_writable
from ops.data.loader import make_loader
from ops.dataset import TSNDataSet, quick_check
from ops.dataset_config import DataOptions, DatasetPaths, resolve_dataset
from ops.models import TSN, build_model
from ops.network.runtime import to_channels_last, warn_if_compiling_is_slow
from ops.training.class_weights import class_weights
from ops.training.log import RunLog
from ops.training.resume import (
    Position,
    check_resumable,
    check_same_network,
    find_checkpoint,
    learns_head_faster,
    read_position,
    restore_optimizer,
    restore_random_state,
)
from ops.training.run import Data, Run
from ops.training.settings import Settings, training_advice
from ops.training.step import Networks, Updater
from ops.transforms import ClipNormalize, scale_size, train_transform, val_transform

logger = logging.getLogger(__name__)


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seed every random generator, and choose between the fastest kernels and those that always give the same."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not deterministic
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def build_run(args: argparse.Namespace, process: Process) -> Run:
    """Everything that main.py's options ask for, ready to train or validate.

    Raises:
        InputError: files that are missing, wrong or cannot be written; options that contradict a checkpoint.
    """
    warn_if_compiling_is_slow(args.compile, process.device)
    paths = resolve_dataset(
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
            fps=args.fps,
        ),
    )
    settings = Settings.from_args(args, paths)
    data = _open_data(paths, settings, process)
    if paths.fps is not None:
        rate = paths.fps / data.train_set.frame_distance
        settings = dataclasses.replace(settings, options=dataclasses.replace(settings.options, frame_rate=rate))
    if process.is_main and not settings.evaluate:
        check_writable(settings.log_folder, "see --root_log")
        check_writable(settings.model_folder, "see --root_model")
    resumed = find_checkpoint(settings.resume, settings.model_folder, needed=settings.evaluate)
    tuned = load_checkpoint(settings.tune_from) if settings.tune_from and resumed is None else None
    fc_lr5 = learns_head_faster(resumed, tuned, settings.options, no_fc_lr5=settings.no_fc_lr5)
    weights = class_weights(settings.class_weights, data.train_set.labels, settings.options.num_class)
    settings = dataclasses.replace(settings, fc_lr5=fc_lr5, loss_weights=weights)
    continues = resumed is not None and not settings.evaluate
    if resumed is not None:
        check_dataset(resumed, settings.options.dataset, settings.options.class_names)
    if continues:
        check_resumable(resumed, settings.recorded(data.train_set))
    model = _build_network(settings, resumed, tuned, process)
    updater = _make_updater(model, settings, process)
    position = Position(epoch=settings.start_epoch)
    if continues:
        position = read_position(resumed, num_steps=data.num_steps)
        restore_optimizer(updater.optimizer, resumed)
    log = _open_log(args, settings, data, process, position, resumed)
    normalize = ClipNormalize(**model.normalization, channels_last=settings.channels_last)
    networks = Networks.wrap(model, normalize, process, compiled=settings.compile, loss_weights=settings.loss_weights)
    run = Run(settings, networks, updater, data, process=process, log=log, position=position)
    if not settings.evaluate:
        _announce(settings, process, position, resumed)
        # Each process draws its own dropout masks; a resumed one gets its own random state back, last of all.
        torch.manual_seed(settings.seed + process.rank + 1000 * position.epoch)
        if continues:
            restore_random_state(resumed, process, updater.scaler)
    return run


# --- data -------------------------------------------------------------------------------------------------------------


def _open_data(paths: DatasetPaths, settings: Settings, process: Process) -> Data:
    val_set = _open_dataset(paths, settings, training=False)
    train_set = val_set if settings.evaluate else _open_dataset(paths, settings, training=True)
    train_loader, val_loader = (
        make_loader(
            dataset,
            batch_size=settings.batch_size,
            workers=process.share_workers(settings.workers),
            shuffle=training,
            seed=settings.seed,
            process=process,
            drop_last=training,
        )
        for dataset, training in ((train_set, True), (val_set, False))
    )
    return Data(train_set, val_set, train_loader, val_loader, num_steps=len(train_loader))


def _open_dataset(paths: DatasetPaths, settings: Settings, *, training: bool) -> TSNDataSet:
    """Training or validation set, after a quick look at whether its files are there."""
    options = settings.options
    list_file = paths.train_list if training else paths.val_list
    if list_file is None:
        raise InputError(f"data set {paths.name}: give --train_list and --val_list")
    chosen = TSNDataSet(
        paths.root_path,
        list_file,
        num_segments=options.num_segments,
        new_length=options.new_length,
        modality=options.modality,
        image_tmpl=paths.image_tmpl,
        transform=train_transform(options.input_size, options.modality, options.flip)
        if training
        else val_transform(options.input_size, scale_size(options.input_size)),
        random_shift=training,
        dense_sample=options.dense_sample,
        io=settings.io,
        image_backend=settings.image_backend,
        num_class=options.num_class,
        seed=settings.seed,
    )
    try:
        quick_check(chosen)
    except InputError as error:
        if settings.on_error == "raise":
            raise
        logger.warning("Warning: %s", error)
    return chosen


# --- network and optimiser --------------------------------------------------------------------------------------------


def _build_network(settings: Settings, resumed: Checkpoint | None, tuned: Checkpoint | None, process: Process) -> TSN:
    """The network on its device, with the weights of a checkpoint (resumed or fine-tuned), else of `pretrain`."""
    options = settings.options
    has_weights = resumed is not None or tuned is not None
    model = build_model(
        options,
        pretrain="none" if has_weights else settings.pretrain,
        partial_bn=settings.partial_bn,
        fc_lr5=settings.fc_lr5,
        print_spec=process.is_main,
    )
    if resumed is not None:
        check_same_network(resumed, options.to_dict())
        logger.info("%s", load_into(model, resumed))
    elif tuned is not None:
        logger.info("%s", load_for_finetune(model, tuned, dataset=options.dataset, num_class=options.num_class))
    model.to(process.device)
    if settings.channels_last:
        to_channels_last(model)
    return sync_batch_norm(model, process) if settings.sync_bn else model


def _make_updater(model: TSN, settings: Settings, process: Process) -> Updater:
    optimizer = torch.optim.SGD(
        model.get_optim_policies(),
        settings.schedule.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    return Updater(optimizer, torch.amp.GradScaler(process.device.type) if settings.amp == "fp16" else None)


# --- what the run says at its beginning -------------------------------------------------------------------------------


def _open_log(
    args: argparse.Namespace,
    settings: Settings,
    data: Data,
    process: Process,
    position: Position,
    resumed: Checkpoint | None,
) -> RunLog:
    if settings.evaluate or not process.is_main:
        return RunLog(None, echo=process.is_main)
    step = position.epoch * data.num_steps + (position.progress.step if position.progress else 0)
    is_own = resumed is not None and Path(resumed.path).resolve().parent == settings.model_folder.resolve()
    log = RunLog(
        settings.log_folder,
        resume=position.log if is_own else None,
        start=(position.epoch, step),
        checkpoints=None if is_own else settings.model_folder,
    )
    note = "new run" if resumed is None else f"resumed from {resumed.path}"
    log.describe(vars(args), note, device=str(process))
    return log


def _announce(settings: Settings, process: Process, position: Position, resumed: Checkpoint | None) -> None:
    """Log where the run begins, and what about its options is probably a mistake."""
    epochs = settings.schedule.epochs
    if position.epoch >= epochs:
        logger.info(
            "%s: %s done, nothing is left of %d: to train longer, give more --epochs and --resume with this file",
            resumed.path,
            counted(position.epoch, "epoch"),
            epochs,
        )
    elif resumed is not None:
        step = f", step {position.progress.step}" if position.progress else ""
        logger.info("Resumed from %s at epoch %d%s", resumed.path, position.epoch, step)
    logger.info("To see the curves: tensorboard --logdir %s", shlex.quote(str(settings.log_folder)))
    for line in training_advice(settings, process):
        logger.warning("Warning: %s", line)
