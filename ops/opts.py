"""The options of both commands. Published names and defaults are frozen: people's scripts use them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from ops.checkpoint.options import CONSENSUS_TYPES
from ops.common.errors import InputError, at_least
from ops.common.modality import MODALITIES
from ops.network.backbones import BACKBONES

_positive, _not_negative = at_least(1), at_least(0)


def _int_list(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _float_list(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


class ShowDefaults(argparse.RawDescriptionHelpFormatter):
    """Adds the default to the help of every option that has one and does not name it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        without = action.default in (None, "", argparse.SUPPRESS) or action.default is False
        if without or not action.option_strings or "default" in text:
            return text
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f"{text} (default: {default})"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line: a usage of dozens of options above it would hide it."""

    def __init__(self, description: str, usage: str) -> None:
        super().__init__(description=description, usage=usage, formatter_class=ShowDefaults)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def _add_inert_options(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Published options that no code reads, accepted because people's scripts have them."""
    group = parser.add_argument_group("published options that do nothing")
    for flag in flags:
        group.add_argument(flag, default=None, metavar="X", help="accepted and ignored")


def _add_data_options(parser: argparse.ArgumentParser, per_net: str = "") -> None:
    """per_net: what to add to the help of options that may have one entry for each net."""
    group = parser.add_argument_group("data")
    group.add_argument("--root_dataset", help="folder of all data sets (default: $TSM_DATA_ROOT, else data/)")
    group.add_argument(
        "--root_path", help=f"folder that list paths are relative to (default: the data set's own){per_net}"
    )
    group.add_argument("--num_class", type=_positive, help="number of classes (default: the data set's own)")
    group.add_argument(
        "--image_tmpl", help=f"frame file name, such as img_{{:05d}}.jpg (default: the data set's own){per_net}"
    )
    group.add_argument("--split", type=int, choices=(1, 2, 3), default=1, help="split of UCF101 / HMDB51")
    group.add_argument(
        "--image_backend",
        choices=("torchvision", "pillow"),
        default="torchvision",
        help="decode and resize with torchvision (fast) or Pillow (the published pipeline, bit for bit)",
    )
    group.add_argument("--io", choices=("frames", "video"), default="frames", help="read frame folders or video files")
    group.add_argument("--on_error", choices=("raise", "skip"), default="raise", help="what an unreadable video does")
    group.add_argument(
        "-j",
        "--workers",
        type=_not_negative,
        default=8,
        help="loader workers on each machine; 0: the main process loads",
    )


def _add_device_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("device")
    group.add_argument("--gpus", nargs="+", type=int, help="CUDA devices to use (default: all; without any, the CPU)")
    group.add_argument("--amp", choices=("none", "bf16", "fp16"), default="none", help="mixed precision")
    group.add_argument("--compile", action="store_true", help="run the network through torch.compile (for GPUs)")
    group.add_argument(
        "--memory_format",
        choices=("auto", "channels_last", "contiguous"),
        default="auto",
        help="layout of activations; auto is channels_last, which is faster",
    )


def train_parser() -> argparse.ArgumentParser:
    """Options of main.py."""
    parser = _Parser("Train TSM or TSN on a video data set.", "main.py DATASET {RGB,Flow,RGBDiff} [options]")
    parser.add_argument("dataset", help="name in ops/dataset_config.py, or your own with --train_list and the like")
    parser.add_argument("modality", choices=MODALITIES, help="what the frames are")
    parser.add_argument("--train_list", default="", help="list file to train on (default: the data set's own)")
    parser.add_argument("--val_list", default="", help="list file to validate on (default: the data set's own)")
    parser.add_argument("--fps", type=float, help="frames a second of the videos (default: the data set's own)")
    parser.add_argument("--store_name", default="", help="name of the run (default: made from the options)")
    _add_model_options(parser)
    _add_learning_options(parser)
    _add_run_options(parser)
    _add_data_options(parser)
    _add_device_options(parser)
    _add_inert_options(parser, "--k", "--img_feature_dim", "--snapshot_pref", "--flow_prefix")
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--arch", default="BNInception", help=f"2D network: {', '.join(BACKBONES)}")
    group.add_argument("--num_segments", type=_positive, default=3, help="frames of a clip")
    group.add_argument(
        "--consensus_type", choices=CONSENSUS_TYPES, default="avg", help="how segments make a clip's scores"
    )
    group.add_argument("--dropout", "--do", type=float, default=0.5, help="before the classifier")
    group.add_argument("--loss_type", choices=("nll",), default="nll", help="cross entropy; there is no other")
    group.add_argument("--suffix", help="added to the run's name")
    group.add_argument(
        "--pretrain", default="imagenet", help="first weights: imagenet (downloaded), none (random), or a file"
    )
    group.add_argument("--tune_from", help="fine-tune from this checkpoint (a file or a published name)")
    group.add_argument("--input_size", type=_positive, default=224, help="side of the network's input in pixels")
    group.add_argument("--shift", action="store_true", help="use the temporal shift (without it: TSN)")
    group.add_argument(
        "--shift_div", type=_positive, default=8, help="one part in so many of the channels moves each way"
    )
    group.add_argument("--shift_place", default="blockres", help="blockres, block, or BNInception's 12-digit mask")
    group.add_argument("--online", action="store_true", help="shift from the past only, to run frame by frame later")
    group.add_argument("--temporal_pool", action="store_true", help="halve the frames before a ResNet's layer2")
    group.add_argument("--non_local", action="store_true", help="add non-local blocks to a ResNet")
    group.add_argument("--dense_sample", action="store_true", help="clips of 64 frames' span, as in I3D")


def _add_learning_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("learning")
    group.add_argument("--epochs", type=_positive, default=120, help="length of the run")
    group.add_argument("-b", "--batch-size", type=_positive, default=128, help="of the whole job, over all processes")
    group.add_argument("--accum_steps", type=_positive, default=1, help="split each batch into this many passes")
    group.add_argument("--lr", "--learning-rate", type=float, default=0.001, help="first learning rate")
    group.add_argument("--auto_lr", type=_positive, metavar="BASE_BATCH", help="scale --lr by batch size / BASE_BATCH")
    group.add_argument("--no_fc_lr5", action="store_true", help="the classifier learns no faster (default: 5 x --lr)")
    group.add_argument("--lr_type", choices=("step", "cos"), default="step", help="how the rate falls over the epochs")
    group.add_argument(
        "--lr_steps", type=float, nargs="+", default=[50, 100], metavar="EPOCH", help="where 'step' divides it by 10"
    )
    group.add_argument("--warmup_epochs", type=_not_negative, default=0, help="length of a linear warm-up")
    group.add_argument("--momentum", type=float, default=0.9, help="of SGD")
    group.add_argument("--weight-decay", "--wd", type=float, default=5e-4, help="of SGD")
    group.add_argument("--clip-gradient", "--gd", type=float, help="largest norm of the gradient (default: no limit)")
    group.add_argument(
        "--no_partialbn", "--npb", action="store_true", help="train every batch norm (default: only the first)"
    )
    group.add_argument("--sync_bn", action="store_true", help="batch statistics over all processes (on GPUs)")
    group.add_argument(
        "--class_weights",
        default="",
        metavar="auto|FILE",
        help="weigh the classes in the loss: auto by the inverse of their numbers of clips, or as a file says, "
        "a number a line",
    )
    group.add_argument("--no_flip", action="store_true", help="never flip left-right (where sides carry the label)")
    group.add_argument("--seed", type=_not_negative, default=0, help="of every random choice")
    group.add_argument("--deterministic", action="store_true", help="only deterministic kernels")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--print-freq", "-p", type=_positive, default=20, help="steps between two lines of the log")
    group.add_argument("--eval-freq", "-ef", type=_positive, default=5, help="epochs between two validations")
    group.add_argument(
        "--resume", default="", metavar="FILE|auto", help="continue from a file, or the run's own (auto)"
    )
    group.add_argument("-e", "--evaluate", action="store_true", help="validate only")
    group.add_argument("--start-epoch", type=_not_negative, default=0, help="number of the first epoch of a new run")
    group.add_argument("--save_every", type=_positive, metavar="STEPS", help="also save within an epoch")
    group.add_argument("--plots", metavar="DIR", help="write curves, a confusion matrix and tables")
    group.add_argument("--root_log", default="log", help="folder of the logs of all runs")
    group.add_argument("--root_model", default="checkpoint", help="folder of the checkpoints of all runs")


def test_parser() -> argparse.ArgumentParser:
    """Options of test_models.py."""
    parser = _Parser(
        "Evaluate a checkpoint, or an ensemble.", "test_models.py DATASET --weights FILE[,FILE...] [options]"
    )
    a_net = "; a comma list has one for each net"
    parser.add_argument("dataset", help="name in ops/dataset_config.py, or your own with --test_list and the like")
    parser.add_argument("--weights", required=True, help="files or published names; a comma list is an ensemble")
    parser.add_argument(
        "--test_segments",
        type=_int_list,
        help=f"frames of a clip (default: what a network with the shift was trained with, 25 for TSN){a_net}",
    )
    parser.add_argument("--any_dataset", action="store_true", help="allow another data set than the checkpoint's")
    parser.add_argument("--coeff", type=_float_list, help=f"weight of the net's scores (default: 1){a_net}")
    parser.add_argument("--test_list", help=f"list file (default: the data set's validation list){a_net}")
    parser.add_argument(
        "--protocol",
        choices=("efficient", "accurate", "dense"),
        help="1 clip, centre crop; 2 clips, 3 crops, full resolution; 10 dense clips, 3 crops, full resolution",
    )
    parser.add_argument("--dense_sample", action="store_true", help="10 dense clips")
    parser.add_argument("--twice_sample", action="store_true", help="2 uniform clips")
    parser.add_argument("--full_res", action="store_true", help="crops of the full short side (256 for 224)")
    parser.add_argument("--test_crops", type=int, choices=(1, 3, 5, 10), help="crops of each frame (default: 1)")
    parser.add_argument("--crop_fusion_type", choices=("avg",), default="avg", help="the mean; there is no other")
    parser.add_argument("--softmax", action="store_true", help="softmax of each net's mean scores")
    parser.add_argument("--reverse", action="store_true", help="play every video backwards")
    parser.add_argument("--batch_size", type=_positive, default=1, help="videos at a time, in each process")
    parser.add_argument("--max_num", type=int, default=-1, help="evaluate the first N videos only; -1 is all")
    parser.add_argument("--input_size", type=_positive, help="default: the checkpoint's own, else 224")
    parser.add_argument("--csv_file", help="write predictions as text, in the published format")
    parser.add_argument(
        "--predictions", metavar="FILE.csv", help="write path, truth, its rank, and the five best classes of each video"
    )
    parser.add_argument("--scores", metavar="FILE.npz", help="write names, labels and scores")
    parser.add_argument("--plots", metavar="DIR", help="write a confusion matrix, tables, and the worst clips")
    _add_data_options(parser, per_net=a_net)
    _add_device_options(parser)
    _add_inert_options(parser, "--img_feature_dim", "--num_set_segments", "--pretrain")
    return parser


def parse_train_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse main.py's command line.

    Raises:
        InputError: options that contradict each other, or a number out of its range.
    """
    args = train_parser().parse_args(argv)
    if args.online and not args.shift:
        raise InputError("--online says which way --shift moves channels: give --shift, too")
    if args.start_epoch >= args.epochs and not args.evaluate:
        raise InputError(f"--start-epoch {args.start_epoch} leaves nothing to do: --epochs is {args.epochs}")
    if args.tune_from and args.resume and args.resume != "auto":
        raise InputError("--tune_from begins a run and --resume continues one: give one of them")
    for flag, value in (("--lr", args.lr), ("--clip-gradient", args.clip_gradient), ("--fps", args.fps)):
        if value is not None and not value > 0:
            raise InputError(f"{flag} must be more than 0, got {value:g}")
    for flag, value in (("--weight-decay", args.weight_decay), ("--momentum", args.momentum)):
        if not value >= 0:
            raise InputError(f"{flag} must not be negative, got {value:g}")
    return args


def parse_test_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse test_models.py's command line."""
    return test_parser().parse_args(argv)


# The published name of main.py's parser.
parser = train_parser()
