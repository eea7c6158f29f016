"""Evaluate a checkpoint, or an ensemble: python test_models.py kinetics --weights=CKPT --test_segments=8"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ops.checkpoint.file import load_checkpoint
from ops.common.distributed import Process, check_amp, init_from_env, lost_processes, shut_down
from ops.common.errors import InputError, counted, run_command
from ops.common.files import write_lines
from ops.data.loader import make_loader
from ops.dataset_configs import resolve_dataset
from ops.evaluation.ensemble import check_same_videos, evaluate
from ops.evaluation.net import Net, Runtime, choose_views, default_num_class, load_net
from ops.evaluation.plots import confusion_png, per_class_table
from ops.evaluation.scores import Scores, fuse, submission_lines
from ops.opts import parse_test_args, test_parser
from ops.training.report import check_plots
from pretrained.table import local_path

logger = logging.getLogger(__name__)

_REPORT_EVERY = 20  # videos, as published


def per_net(value: Sequence | str | None, num_nets: int, option: str) -> list:
    """One value a net: a list (or comma list) of as many, or a single one for all."""
    values = value.split(",") if isinstance(value, str) and num_nets > 1 else value
    if values is None or isinstance(values, str) or len(values) == 1:
        return [values if values is None or isinstance(values, str) else values[0]] * num_nets
    if len(values) != num_nets:
        raise InputError(
            f"{option} has {counted(len(values), 'value')} for {counted(num_nets, 'weight')}: give one for each"
            + (", or one for all" if num_nets > 1 else "")
        )
    return list(values)


def weight_files(weights: str) -> list[str]:
    """The files or published names that --weights lists; a file may have a comma in its own name."""
    return [weights] if Path(weights).is_file() else weights.split(",")


def load_nets(args: argparse.Namespace, num_crops: int | None, process: Process) -> tuple[list[Net], list, list]:
    """Nets, their test sets, and the class names (None where unknown)."""
    views = choose_views(
        args.protocol, num_crops=num_crops, dense=args.dense_sample, twice=args.twice_sample, full_res=args.full_res
    )
    runtime = Runtime(process.device, process.devices, args.amp, args.compile, args.memory_format != "contiguous")
    weights = weight_files(args.weights)
    settings = zip(
        weights,
        per_net(args.test_segments, len(weights), "--test_segments"),
        per_net(args.test_list, len(weights), "--test_list"),
        per_net(args.root_path, len(weights), "--root_path"),
        per_net(args.image_tmpl, len(weights), "--image_tmpl"),
        strict=True,
    )
    nets, datasets, names = [], [], None
    for name, num_segments, test_list, root_path, image_tmpl in settings:
        checkpoint = load_checkpoint(local_path(name))
        options = checkpoint.options
        paths = resolve_dataset(
            args.dataset,
            options.modality,
            root_dataset=args.root_dataset,
            split=args.split,
            num_class=args.num_class or default_num_class(args.dataset, checkpoint),
            val_list=test_list,
            root_path=root_path,
            image_tmpl=image_tmpl or (options.image_tmpl if options.dataset == args.dataset else None),
            io=args.io,
        )
        net = load_net(
            checkpoint,
            views=views,
            runtime=runtime,
            num_segments=num_segments,
            input_size=args.input_size,
            num_class=paths.num_classes,
        )
        nets.append(net)
        datasets.append(
            net.dataset(
                paths,
                io=args.io,
                image_backend=args.image_backend,
                reverse=args.reverse,
                allow_outside=args.allow_outside,
                max_num=args.max_num,
            )
        )
        names = names or paths.class_names or options.class_names
    check_same_videos(datasets)
    return nets, datasets, names


def progress_line(total: int) -> Callable[[int, float, float, float], None]:
    """A printer of the published line, every 20 videos."""
    printed = 0

    def report(done: int, seconds: float, top1: float, top5: float) -> None:
        nonlocal printed
        if done // _REPORT_EVERY > printed // _REPORT_EVERY or done == total:
            printed = done
            print(
                f"video {done} done, total {done}/{total}, average {seconds / done:.3f} sec/video,"
                f" moving Prec@1 {top1:.3f} Prec@5 {top5:.3f}",
                flush=True,
            )

    return report


def check_outputs(args: argparse.Namespace) -> None:
    """Find out now, and not behind the evaluation, whether the files of `write_results` can be written.

    Raises:
        InputError: they cannot.
    """
    for option, value in (("--csv_file", args.csv_file), ("--scores", args.scores)):
        if not value:
            continue
        path = Path(os.path.realpath(value))  # a link is followed when the file is written
        if path.is_dir():
            raise InputError(f"{option} {value} is a folder; give the path of a file")
        if not path.parent.is_dir():
            raise InputError(f"{option} {value}: the folder {path.parent} is not there")
        if not os.access(path if path.exists() and not path.is_file() else path.parent, os.W_OK):
            raise InputError(f"{option} {value}: may not be written")
    if args.plots:
        check_plots(args.plots)


def write_results(result: Scores, class_names: list[str] | None, args: argparse.Namespace) -> None:
    """The files that --csv_file, --scores and --plots ask for."""
    if args.csv_file:
        write_lines(args.csv_file, submission_lines(result, class_names, top5=args.dataset == "somethingv2"))
        print(f"wrote predictions to {args.csv_file}")
    if args.scores:
        result.save(args.scores)
        print(f"wrote scores to {args.scores}")
    if args.plots:
        folder, matrix = Path(args.plots), result.confusion()
        table = per_class_table(matrix, class_names)
        confusion_png(matrix, class_names, folder / "confusion.png")
        write_lines(folder / "per_class.txt", [table])
        print(f"{table}\nwrote {folder / 'confusion.png'} and {folder / 'per_class.txt'}")


def run(args: argparse.Namespace, num_crops: int | None, process: Process) -> None:
    """Evaluate on this process's share; rank 0 reports."""
    if process.is_main:
        check_outputs(args)
    coeffs = per_net(args.coeff or [1.0], len(weight_files(args.weights)), "--coeff")
    if not np.isfinite(coeffs).all():
        raise InputError(f"--coeff {args.coeff}: the weights must be finite numbers")
    nets, datasets, class_names = load_nets(args, num_crops, process)
    if process.is_main:
        for net, coeff in zip(nets, coeffs, strict=True):
            print(f"{net.name}: {net}" + (f", coefficient {coeff:g}" if len(nets) > 1 else ""))
    loaders = [
        make_loader(
            dataset,
            batch_size=args.batch_size * process.world_size,
            workers=-(-process.share_workers(args.workers) // len(nets)),
            shuffle=False,
            rank=process.rank,
            world_size=process.world_size,
        )
        for dataset in datasets
    ]
    outcome = evaluate(
        nets,
        loaders,
        coeffs=coeffs,
        softmax=args.softmax,
        on_error=args.on_error,
        process=process,
        on_progress=progress_line(len(loaders[0].sampler)) if process.is_main else None,
    )
    if not process.is_main:
        return

    records = [datasets[0].video_list[index] for index in outcome.indices]
    names, labels = [record.path for record in records], np.array([record.label for record in records])
    result = Scores(names, labels, fuse(outcome.scores, coeffs, softmax=args.softmax))
    if len(nets) > 1:
        for net, scores in zip(nets, outcome.scores, strict=True):
            single = Scores(names, labels, scores)
            print(f"{net.name} alone: Prec@1 {single.topk_percent(1):.2f}% Prec@5 {single.topk_percent(5):.2f}%")
    for failure in outcome.failures:
        logger.warning("left out: %s", failure)
    write_results(result, class_names, args)
    print("-----Evaluation is finished------")
    if args.protocol:
        print(f"Protocol {args.protocol}: {nets[0].views}")
    print(f"{len(names)} of {counted(len(datasets[0]), 'video')}")
    print(f"Class Accuracy {result.class_percent():.2f}%")
    print(f"Overall Prec@1 {result.topk_percent(1):.2f}% Prec@5 {result.topk_percent(5):.2f}%")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_test_args(argv)
    # With a protocol, only crops that were really asked for can contradict it.
    explicit = test_parser().parse_args(argv, argparse.Namespace(test_crops=None))
    process = init_from_env(args.gpus)
    logging.basicConfig(level=logging.INFO if process.is_main else logging.WARNING, format="%(message)s")
    try:
        check_amp(args.amp, process, "test_models.py")
        with lost_processes(process):
            run(args, explicit.test_crops, process)
    finally:
        shut_down()


if __name__ == "__main__":
    run_command(main)
