"""Train TSM or TSN: python main.py something RGB --arch resnet50 --num_segments 8 --shift ..."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ops.common.distributed import check_amp, init_from_env, lost_processes, shut_down
from ops.common.errors import run_command
from ops.evaluation.plots import check_can_plot, curves_png, write_confusion
from ops.network.runtime import compile_errors
from ops.opts import parse_train_args
from ops.training.log import read_epochs
from ops.training.run import Run
from ops.training.setup import build_run, seed_everything
from pretrained.table import local_path

logger = logging.getLogger("main")


def main(argv: Sequence[str] | None = None) -> int | None:
    args = parse_train_args(argv)
    seed_everything(args.seed, deterministic=args.deterministic)
    process = init_from_env(args.gpus)
    logging.basicConfig(level=logging.INFO if process.is_main else logging.ERROR, format="%(message)s")
    try:
        check_amp(args.amp, process, "main.py")
        if args.tune_from:
            args.tune_from = str(local_path(args.tune_from))
        if args.plots and process.is_main:
            check_can_plot(args.plots)
        with compile_errors(args.compile), lost_processes(process):
            run = build_run(args, process)
            status = run.evaluate() if args.evaluate else run.fit()
        if args.plots and process.is_main and status is None:
            write_plots(run, args)
        return status
    finally:
        shut_down()


def write_plots(run: Run, args: argparse.Namespace) -> None:
    """Draw the run's curves, and the last validation's confusion matrix with its tables."""
    folder = Path(args.plots)
    if not args.evaluate:
        curves_png(read_epochs(run.settings.log_folder / "epochs.csv"), folder / "curves.png")
    if run.last_validation is not None:
        matrix, class_names = run.last_validation.confusion.numpy(), run.settings.options.class_names
        print(write_confusion(matrix, class_names, folder))
    logger.info("Wrote figures to %s", folder)


if __name__ == "__main__":
    run_command(main)
