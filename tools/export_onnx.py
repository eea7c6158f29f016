"""Export a checkpoint as ONNX: python tools/export_onnx.py CHECKPOINT OUT.onnx

The file has the clip network, `clip` (N, T, C, H, W) -> `logits` (N, K), or with --stream the online network, one frame
at a time: `frame` (N, 3, H, W), `shift_in_0`, ... -> `logits` (N, K), `shift_out_0`, ... Each shift_out goes into the
next frame's shift_in, which is zeros for the first. Class names, normalisation, layout, sampling and the like are in
the file's metadata. ONNX Runtime's scores are compared with PyTorch's before the file is kept. For TensorRT 8, take
--opset 17 or less.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.checkpoint.file import load_checkpoint
from ops.common.class_names import read_class_names
from ops.common.errors import InputError, at_least, counted, positive, run_command
from ops.evaluation.net import load_model
from ops.network.onnx_export import DEFAULT_OPSET, OPSETS, export_clip, export_stream
from ops.network.runtime import fold_batchnorm
from ops.opts import ShowDefaults
from ops.streaming import StreamingTSM
from pretrained.table import local_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument("checkpoint", help="checkpoint, or a published name")
    parser.add_argument("output", metavar="OUT.onnx", help="file to write")
    parser.add_argument("--stream", action="store_true", help="one frame at a time, with the state as inputs")
    parser.add_argument("--dynamic", action="store_true", help="any batch size (default: 1)")
    parser.add_argument("--opset", type=int, choices=OPSETS, default=DEFAULT_OPSET, help="version of ONNX's operators")
    parser.add_argument("--segments", type=at_least(1), help="frames a clip (default: as trained)")
    parser.add_argument("--input_size", type=at_least(1), help="side of a frame in pixels (default: as trained)")
    parser.add_argument("--labels", metavar="FILE", help="class names, a line each (default: the checkpoint's)")
    parser.add_argument(
        "--frame_rate", type=positive, metavar="HZ", help="frames a second of a clip (default: as trained)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if args.stream and args.segments is not None:
        raise InputError("--segments is for clips: a stream has no end")
    path = local_path(args.checkpoint)
    options = {"frame_rate": args.frame_rate, "opset": args.opset, "dynamic": args.dynamic}
    if args.stream:
        stream = StreamingTSM.from_checkpoint(path, fold_bn=True, input_size=args.input_size)
        options["class_names"] = args.labels and read_class_names(args.labels, stream.num_class)
        worst = export_stream(stream, args.output, **options)
        what = f"a frame and {counted(stream.num_buffers, 'buffer')}"
    else:
        model, known = load_model(load_checkpoint(path), num_segments=args.segments, input_size=args.input_size)
        fold_batchnorm(model.eval().requires_grad_(False))
        options["class_names"] = args.labels and read_class_names(args.labels, model.num_class)
        worst = export_clip(model, known, args.output, **options)
        what = f"a clip of {counted(model.num_segments, 'segment')}"
    batch = "any batch size" if args.dynamic else "batch size 1"
    print(f"wrote {args.output} ({Path(args.output).stat().st_size / 1e6:.1f} MB): {what}, {batch}, opset {args.opset}")
    print(f"ONNX Runtime's scores differ from PyTorch's by at most {worst:.1e} of the largest")


if __name__ == "__main__":
    run_command(main)
