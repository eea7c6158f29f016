"""Convert a streaming MobileNetV2 between our checkpoints and the published streaming layout.

    python tools/convert_online.py ckpt.best.pth.tar mobilenetv2_mine_online.pth.tar      # ours -> published
    python tools/convert_online.py mobilenetv2_jester_online.pth.tar jester.pth.tar       # published -> ours

The published layout is a bare state_dict (`features.{i}.conv.{j}.*`, `classifier.*`): either program runs the other's
weights, bit for bit. It holds no options: on the way back, --dataset, --labels and --input_size give what our
checkpoints record (Jester's 27 classes are known). --half stores the weights of convolutions and classifier in half
precision, for a file of half the size; everything here loads it into float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor

from ops.checkpoint.file import Checkpoint, load_checkpoint, save_checkpoint
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.streaming_layout import (
    check_fits_layout,
    is_streaming_layout,
    streaming_options,
    to_streaming_layout,
)
from ops.checkpoint.weights import load_into, published_state_dict
from ops.common.class_names import JESTER_CLASSES, read_class_names
from ops.common.errors import InputError, run_command
from ops.dataset_config import DATASETS
from ops.models import build_model
from ops.opts import ShowDefaults
from pretrained.table import local_path

LAYOUTS = ("published", "ours")


def to_published(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights in the published streaming layout.

    Raises:
        InputError: a network that the published program could not run.
    """
    options = streaming_options(checkpoint)
    try:
        check_fits_layout(options)
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error
    load_into(build_model(options, num_class=checkpoint.num_class), checkpoint)  # refuses what is not that network
    return to_streaming_layout(checkpoint.state_dict)


def to_ours(checkpoint: Checkpoint, options: ModelOptions) -> dict[str, Any]:
    """A checkpoint of ours, without what only training needs."""
    model = build_model(options, num_class=checkpoint.num_class, partial_bn=False)
    load_into(model, checkpoint)
    state = {"state_dict": published_state_dict(model), "arch": options.arch, "options": options.to_dict()}
    known = {"epoch": checkpoint.epoch, "best_prec1": checkpoint.best_prec1}
    return state | {name: value for name, value in known.items() if value is not None}


def halved(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions and classifier as float16; BatchNorm's stay (small tensors, tiny variances)."""
    return {key: value.half() if value.dim() > 1 else value for key, value in state_dict.items()}


def our_options(
    checkpoint: Checkpoint, *, dataset: str | None, labels: str | None, input_size: int | None
) -> ModelOptions:
    """Options to record: the file's own, the published model's, and what the command line adds.

    Raises:
        InputError: a bare file of another network than Jester's, and no --dataset.
    """
    options = streaming_options(checkpoint)
    if checkpoint.known_options is None and dataset is None and checkpoint.num_class != len(JESTER_CLASSES):
        raise InputError(
            f"{checkpoint.path} holds no options, and its {checkpoint.num_class} classes are not Jester's "
            f"{len(JESTER_CLASSES)}: give what it was trained on with --dataset (and --labels, --input_size)"
        )
    changes: dict[str, Any] = {}
    if is_streaming_layout(checkpoint.state_dict):
        changes["dropout"] = ModelOptions.dropout  # the classifier as training lays it out, not inside the backbone
    if dataset is not None and dataset != options.dataset:
        spec = DATASETS.get(dataset)
        changes |= {"dataset": dataset, "class_names": None, "image_tmpl": spec.image_tmpl if spec else None}
    if labels is not None:
        changes["class_names"] = read_class_names(labels, checkpoint.num_class)
    if input_size is not None:
        changes["input_size"] = input_size
    return dataclasses.replace(options, **changes)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("source", metavar="IN", help="checkpoint, or a published name")
    parser.add_argument("target", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("--to", choices=LAYOUTS, help="layout of OUT (default: the other one than IN's)")
    parser.add_argument("--half", action="store_true", help="store weights in half precision")
    parser.add_argument("--dataset", help="to ours: what it was trained on")
    parser.add_argument("--labels", metavar="FILE", help="to ours: class names, a line each")
    parser.add_argument("--input_size", type=int, help="to ours: side of the crops it was trained on (default: 224)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    source = local_path(args.source)
    if args.target.exists() and args.target.samefile(source):
        raise InputError(f"{args.target}: IN and OUT are the same file; give OUT another name")
    checkpoint = load_checkpoint(source)
    if checkpoint.num_class is None:
        raise InputError(f"{checkpoint.path}: holds a backbone without a classifier, which cannot stream")
    try:
        args.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{args.target.parent}: cannot be made: {error.strerror}") from None
    layout = args.to or ("ours" if is_streaming_layout(checkpoint.state_dict) else "published")
    if layout == "published":
        for option in ("dataset", "labels", "input_size"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option} is for our layout: the published one holds weights alone")
        weights = to_published(checkpoint)
        save_checkpoint(halved(weights) if args.half else weights, args.target)
    else:
        options = our_options(checkpoint, dataset=args.dataset, labels=args.labels, input_size=args.input_size)
        state = to_ours(checkpoint, options)
        if args.half:
            state["state_dict"] = halved(state["state_dict"])
        save_checkpoint(state, args.target)
    size_mb = args.target.stat().st_size / 1e6
    print(f"wrote {args.target}: {layout} layout, {checkpoint.num_class} classes, {size_mb:.1f} MB")
    if layout == "published" and checkpoint.num_class != len(JESTER_CLASSES):
        print(f"The published program expects {len(JESTER_CLASSES)} classes: set it to {checkpoint.num_class}.")


if __name__ == "__main__":
    run_command(main)
