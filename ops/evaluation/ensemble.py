"""Evaluation of one net or an ensemble over a test set: from the options of test_models.py to scores.

An ensemble's scores are the mean over its nets, each weighted by its coefficient (`ops.evaluation.scores.fuse`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ops.checkpoint.file import load_checkpoint
from ops.checkpoint.weights import check_dataset
from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.data.loader import Batch, make_loader
from ops.dataset import TSNDataSet
from ops.dataset_config import DataOptions, resolve_dataset
from ops.evaluation.net import Net, Runtime, choose_views, default_num_class, default_test_segments, load_net
from ops.evaluation.scores import fuse
from ops.network.runtime import warn_if_compiling_is_slow
from ops.utils import AverageMeter, accuracy


@dataclass(frozen=True)
class Ensemble:
    """One net or several, each with its own view of the same videos.

    Attributes:
        coeffs: weight of each net's scores.
        class_names: None where no net and no data set has any.
    """

    nets: list[Net]
    datasets: list[TSNDataSet]
    coeffs: list[float]
    class_names: list[str] | None

    def loaders(self, args: argparse.Namespace, process: Process) -> list[Any]:
        """A loader for each net, all in the same order of videos; they share the workers."""
        workers = -(-process.share_workers(args.workers) // len(self.nets))
        batch_size = args.batch_size * process.world_size
        return [
            make_loader(
                dataset,
                batch_size=batch_size,
                workers=workers,
                shuffle=False,
                process=process,
            )
            for dataset in self.datasets
        ]


def build_ensemble(args: argparse.Namespace, process: Process, *, find_file: Callable[[str], Path] = Path) -> Ensemble:
    """The nets that test_models.py's options name.

    Args:
        args: with `weights` as a list.
        find_file: an entry of `weights` -> checkpoint file.

    Raises:
        InputError: a file that is missing or does not fit, options that contradict each other, other videos.
    """
    num_nets = len(args.weights)
    coeffs = _per_net(args.coeff or [1.0], num_nets, "--coeff")
    if not np.isfinite(coeffs).all():
        raise InputError(f"--coeff {args.coeff}: the weights must be finite numbers")
    views = choose_views(
        args.protocol,
        num_crops=args.test_crops,
        dense=args.dense_sample,
        twice=args.twice_sample,
        full_res=args.full_res,
    )
    warn_if_compiling_is_slow(args.compile, process.device)
    runtime = Runtime(process.device, process.devices, args.amp, args.compile, args.memory_format != "contiguous")
    options = ("test_segments", "test_list", "root_path", "image_tmpl")
    values = [_per_net(getattr(args, name), num_nets, f"--{name}") for name in options]
    nets, datasets, class_names = [], [], None
    for weights, num_segments, test_list, root_path, image_tmpl in zip(args.weights, *values, strict=True):
        checkpoint = load_checkpoint(find_file(weights))
        recorded = checkpoint.options
        paths = resolve_dataset(
            args.dataset,
            recorded.modality,
            DataOptions(
                root_dataset=args.root_dataset,
                root_path=root_path,
                val_list=test_list,
                num_class=args.num_class or default_num_class(args.dataset, checkpoint),
                image_tmpl=image_tmpl or (recorded.image_tmpl if recorded.dataset == args.dataset else None),
                split=args.split,
                io=args.io,
            ),
        )
        if not args.any_dataset:
            check_dataset(
                checkpoint, args.dataset, paths.class_names, hint=" (--any_dataset evaluates it all the same)"
            )
        net = load_net(
            checkpoint,
            views=views,
            runtime=runtime,
            num_segments=num_segments or default_test_segments(recorded),
            input_size=args.input_size,
            num_class=paths.num_classes,
        )
        nets.append(net)
        same_name = ("io", "image_backend", "reverse", "max_num")
        datasets.append(net.dataset(paths, **{name: getattr(args, name) for name in same_name}))
        class_names = class_names or paths.class_names or recorded.class_names
    _check_same_videos(datasets)
    return Ensemble(nets, datasets, coeffs, class_names)


def _per_net(value: Sequence | str | None, num_nets: int, option: str) -> list:
    """One value for each net: a list (or comma list) of as many, or a single one for all."""
    values = value.split(",") if isinstance(value, str) and num_nets > 1 else value
    if values is None or isinstance(values, str) or len(values) == 1:
        return [values if values is None or isinstance(values, str) else values[0]] * num_nets
    if len(values) != num_nets:
        raise InputError(
            f"{option} has {counted(len(values), 'value')} for {counted(num_nets, 'weight')}: give one for each"
            + (", or one for all" if num_nets > 1 else "")
        )
    return list(values)


def _check_same_videos(datasets: Sequence[TSNDataSet]) -> None:
    """Raise InputError unless all lists name the same videos with the same labels, in the same order."""
    first = datasets[0]
    for other in datasets[1:]:
        if len(other) != len(first):
            raise InputError(
                f"{other.list_file} lists {counted(len(other), 'video')}, {first.list_file} {len(first)}:"
                " an ensemble needs the same"
            )
        for ours, theirs in zip(first.video_list, other.video_list, strict=True):
            if (ours.path, ours.label) != (theirs.path, theirs.label):
                raise InputError(
                    f"{other.where(theirs)} is {theirs.path!r} with label {theirs.label}, {first.where(ours)} is"
                    f" {ours.path!r} with label {ours.label}: an ensemble needs the same videos in the same order"
                )


@dataclass
class Outcome:
    """Scores of the videos that every net saw.

    Attributes:
        indices: their places in the data set, ascending, int64 (M,).
        scores: one float32 (M, K) a net.
        failures: a line for each video that could not be read.
    """

    indices: np.ndarray
    scores: list[np.ndarray]
    failures: list[str]


def evaluate(
    nets: Sequence[Net],
    loaders: Sequence[Iterable[Batch]],
    *,
    coeffs: Sequence[float] | None = None,
    softmax: bool = False,
    on_error: str = "raise",
    process: Process | None = None,
    on_progress: Callable[[int, float, float, float], None] | None = None,
) -> Outcome:
    """Scores of every video by every net; each process does its share, and all get the whole.

    Args:
        loaders: one a net, all in the same order of videos, not shuffled.
        coeffs, softmax: as in `fuse`, for the running accuracy.
        on_error: 'raise', or 'skip' the videos that some net cannot read.
        on_progress: called after each batch with (videos done, seconds so far, running top-1, running top-5) of this
            process.

    Raises:
        InputError: a video that cannot be read, or scores that are not finite.
    """
    process = process or Process()
    indices: list[np.ndarray] = []
    scores: list[list[np.ndarray]] = [[] for _ in nets]
    failures: dict[str, None] = {}  # a set that keeps order: nets may fail at the same file
    top1, top5 = AverageMeter(), AverageMeter()
    done, start = 0, time.perf_counter()
    batches: tuple[Batch, ...]
    for batches in zip(*loaders, strict=True):
        for message in (message for batch in batches for message in batch.failures):
            if on_error == "raise":
                raise InputError(f"{message} (--on_error skip leaves such videos out and counts them)")
            failures.setdefault(message)
        common = _common_indices(batches)
        done += max(len(batch.indices) + len(batch.failures) for batch in batches)
        if len(common):
            for net, batch, kept in zip(nets, batches, scores, strict=True):
                kept.append(_scores_of(net, batch, common))
            indices.append(common)
            labels = batches[0].labels[np.isin(batches[0].indices.numpy(), common)]
            fused = torch.from_numpy(fuse([kept[-1] for kept in scores], coeffs, softmax=softmax))
            prec1, prec5 = accuracy(fused, labels, (1, 5))
            top1.update(prec1, len(common))
            top5.update(prec5, len(common))
        if on_progress is not None:
            on_progress(done, time.perf_counter() - start, top1.avg, top5.avg)
    return _merge(process.gather((indices, scores, list(failures))), len(nets))


def _common_indices(batches: Sequence[Batch]) -> np.ndarray:
    """Videos of a batch that every net's loader could read, ascending."""
    common = batches[0].indices.numpy()
    for batch in batches[1:]:
        common = np.intersect1d(common, batch.indices.numpy())
    return np.sort(common)


def _scores_of(net: Net, batch: Batch, wanted: np.ndarray) -> np.ndarray:
    """One net's scores (n, K) of the wanted videos of a batch, whose indices ascend."""
    keep = torch.from_numpy(np.isin(batch.indices.numpy(), wanted))
    clips = batch.clips if bool(keep.all()) else batch.clips[keep]
    scores = net.scores(clips).numpy()
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise InputError(
            f"{net.name}: scores of video {int(wanted[bad[0]]) + 1} of the list are not finite:"
            " the weights are damaged, or (with --amp fp16) too large for half precision"
        )
    return scores


_Share = tuple[list[np.ndarray], list[list[np.ndarray]], list[str]]  # indices, scores of each net, failures


def _merge(shares: Sequence[_Share], num_nets: int) -> Outcome:
    """Put the shares of all processes into the order of the data set, each video once."""
    failures = list(dict.fromkeys(message for share in shares for message in share[2]))
    flat = [array for share in shares for array in share[0]]
    if not flat:
        shown = f"; the first: {failures[0]}" if failures else ""
        raise InputError(f"none of the videos could be read ({len(failures)} failed){shown}")
    indices, order = np.unique(np.concatenate(flat), return_index=True)
    scores = [
        np.concatenate([array for share in shares for array in share[1][number]])[order] for number in range(num_nets)
    ]
    return Outcome(indices, scores, failures)
