"""Compare trained nets: a table, and a picture of their curves and confusion matrices.

python tools/compare_runs.py TSN=log/RUN,checkpoint/RUN/ckpt.best.pth.tar,tsn.npz TSM=... --png comparison.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.checkpoint.file import load_checkpoint
from ops.common.errors import InputError, run_command
from ops.evaluation.plots import comparison_png
from ops.evaluation.scores import Scores
from ops.models import build_model
from ops.opts import ShowDefaults
from ops.training.log import read_epochs
from tools.model_info import ModelCost, measure


@dataclass(frozen=True)
class Run:
    """One net: the log of its training, and the scores of test_models.py --scores."""

    cost: ModelCost
    epochs: list[dict[str, float | None]]
    scores: Scores
    class_names: list[str] | None

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] or 0.0 for row in self.epochs)


def read_run(text: str) -> tuple[str, Run]:
    """`NAME=LOG_FOLDER,CHECKPOINT,SCORES.npz` -> the name and the run."""
    name, _, rest = text.partition("=")
    parts = rest.split(",")
    if not name or len(parts) != 3:
        raise InputError(f"{text!r} is not NAME=LOG_FOLDER,CHECKPOINT,SCORES.npz")
    folder, weights, scores = parts
    options = load_checkpoint(weights).options
    model = build_model(options)
    return name, Run(
        measure(name, model), read_epochs(Path(folder) / "epochs.csv"), Scores.load(scores), options.class_names
    )


def table(runs: dict[str, Run]) -> str:
    """A line a net. Seconds: training, validation included."""
    lines = [f"{'net':<8} {'top-1':>8} {'top-5':>8} {'parameters':>12} {'FLOPs a clip':>15} {'seconds':>8}"]
    for name, run in runs.items():
        top1, top5 = run.scores.topk_percent(1), run.scores.topk_percent(5)
        cost = f"{run.cost.parameters:>12,} {run.cost.flops:>15,} {run.seconds:>8.0f}"
        lines.append(f"{name:<8} {top1:>7.2f}% {top5:>7.2f}% {cost}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG_FOLDER,CHECKPOINT,SCORES.npz", help="a net each")
    parser.add_argument("--png", metavar="FILE", help="draw curves and confusion matrices")
    parser.add_argument("--title", default="", help="of the picture")
    args = parser.parse_args(argv)
    runs = dict(read_run(text) for text in args.runs)
    print(table(runs))
    if args.png:
        names = next((run.class_names for run in runs.values() if run.class_names), None)
        comparison_png(
            {name: run.epochs for name, run in runs.items()},
            {name: run.scores.confusion() for name, run in runs.items()},
            names,
            args.png,
            title=args.title,
        )
        print(f"\ncurves and confusion matrices: {args.png}")


if __name__ == "__main__":
    run_command(main)
