"""Evaluate a checkpoint, or an ensemble: python test_models.py kinetics --weights=CKPT --test_segments=8"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ops.common.distributed import Process, check_amp, init_from_env, lost_processes, shut_down
from ops.common.errors import InputError, counted, run_command
from ops.common.files import write_lines
from ops.evaluation.contact_sheet import worst_clips_png
from ops.evaluation.ensemble import Ensemble, Outcome, build_ensemble, evaluate
from ops.evaluation.plots import check_can_plot, write_confusion
from ops.evaluation.scores import Scores, fuse, prediction_lines, submission_lines
from ops.opts import parse_test_args
from ops.utils import hours_minutes_seconds
from pretrained.table import local_path

logger = logging.getLogger(__name__)

_REPORT_EVERY = 20  # videos, as published


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_test_args(argv)
    process = init_from_env(args.gpus)
    logging.basicConfig(level=logging.INFO if process.is_main else logging.WARNING, format="%(message)s")
    try:
        check_amp(args.amp, process, "test_models.py")
        if process.is_main:
            check_outputs(args)
        # A file may have a comma in its own name.
        args.weights = [args.weights] if Path(args.weights).is_file() else args.weights.split(",")
        with lost_processes(process):
            run(args, process)
    finally:
        shut_down()


def run(args: argparse.Namespace, process: Process) -> None:
    """Evaluate on this process's share; rank 0 reports."""
    ensemble = build_ensemble(args, process, find_file=local_path)
    if process.is_main:
        for net, coeff in zip(ensemble.nets, ensemble.coeffs, strict=True):
            print(f"{net.name}: {net}" + (f", coefficient {coeff:g}" if len(ensemble.nets) > 1 else ""))
    outcome = evaluate(
        ensemble.nets,
        ensemble.loaders(args, process),
        coeffs=ensemble.coeffs,
        softmax=args.softmax,
        on_error=args.on_error,
        process=process,
        on_progress=progress_line(len(ensemble.datasets[0]), process) if process.is_main else None,
    )
    if process.is_main:
        report(ensemble, outcome, args)


def progress_line(total: int, process: Process) -> Callable[[int, float, float, float], None]:
    """A printer of the published line, every 20 videos of the whole job, with the time left.

    Args:
        total: videos in the list. The processes work on equal shares of it at the same pace.
    """
    printed = 0

    def show(done_here: int, seconds: float, top1: float, top5: float) -> None:
        nonlocal printed
        done = min(done_here * process.world_size, total)
        if done // _REPORT_EVERY > printed // _REPORT_EVERY or done == total:
            printed = done
            print(
                f"video {done} done, total {done}/{total}, average {seconds / done:.3f} sec/video,"
                f" moving Prec@1 {top1:.3f} Prec@5 {top5:.3f},"
                f" eta {hours_minutes_seconds((total - done) * seconds / done)}",
                flush=True,
            )

    return show


def report(ensemble: Ensemble, outcome: Outcome, args: argparse.Namespace) -> None:
    """Write the files that were asked for, and print what was found."""
    dataset = ensemble.datasets[0]
    records = [dataset.video_list[index] for index in outcome.indices]
    names, labels = [record.path for record in records], np.array([record.label for record in records])
    result = Scores(names, labels, fuse(outcome.scores, ensemble.coeffs, softmax=args.softmax), args.softmax)
    if len(ensemble.nets) > 1:
        for net, scores in zip(ensemble.nets, outcome.scores, strict=True):
            single = Scores(names, labels, scores)
            print(f"{net.name} alone: Prec@1 {single.topk_percent(1):.2f}% Prec@5 {single.topk_percent(5):.2f}%")
    for failure in outcome.failures:
        logger.warning("left out: %s", failure)
    write_results(result, ensemble, outcome.indices, args)
    print("-----Evaluation is finished------")
    if args.protocol:
        print(f"Protocol {args.protocol}: {ensemble.nets[0].views}")
    print(f"{len(names)} of {counted(len(dataset), 'video')}")
    print(f"Class Accuracy {result.class_percent():.2f}%")
    print(f"Overall Prec@1 {result.topk_percent(1):.2f}% Prec@5 {result.topk_percent(5):.2f}%")


def check_outputs(args: argparse.Namespace) -> None:
    """Find out now, and not after the evaluation, whether the files of `write_results` can be written.

    Raises:
        InputError: they cannot.
    """
    for name in ("csv_file", "predictions", "scores"):
        option, value = f"--{name}", getattr(args, name)
        if not value:
            continue
        path = Path(os.path.realpath(value))  # a link is followed when the file is written
        if path.is_dir():
            raise InputError(f"{option} {value} is a folder; give the path of a file")
        if not path.parent.is_dir():
            raise InputError(f"{option} {value}: there is no folder {path.parent}")
        if not os.access(path if path.exists() and not path.is_file() else path.parent, os.W_OK):
            raise InputError(f"{option} {value} may not be written")
    if args.plots:
        check_can_plot(args.plots)


def write_results(result: Scores, ensemble: Ensemble, indices: np.ndarray, args: argparse.Namespace) -> None:
    """Write the files that --csv_file, --predictions, --scores and --plots ask for; `indices`: as in `Outcome`."""
    class_names = ensemble.class_names
    if args.csv_file:
        write_lines(args.csv_file, submission_lines(result, class_names, top5=args.dataset == "somethingv2"))
        print(f"wrote predictions to {args.csv_file}")
    if args.predictions:
        write_lines(args.predictions, prediction_lines(result, class_names))
        print(f"wrote predictions to {args.predictions}")
    if args.scores:
        result.save(args.scores)
        print(f"wrote scores to {args.scores}")
    if args.plots:
        folder = Path(args.plots)
        worst_clips_png(ensemble.datasets[0], indices, result, class_names, folder / "worst_clips.png")
        print(write_confusion(result.confusion(), class_names, folder))
        print(f"wrote figures and tables to {folder}")


if __name__ == "__main__":
    run_command(main)
