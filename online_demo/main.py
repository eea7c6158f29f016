"""Live recognition with the online TSM: python -m online_demo.main

With no options: the first camera, or the clip in the repository where there is none; the small network in the
repository (moving digits); ONNX Runtime; a window (h shows its keys).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from online_demo.backends.choose import BACKENDS, make_backend
from online_demo.camera.cameras import RETRY_S, TIMEOUT_S, CameraOptions
from online_demo.camera.sources import CHOICES, Source, open_source
from online_demo.gestures import PLAIN, rules_for, shown_names, what_to_do
from online_demo.loop import Playback, run_source
from online_demo.model import load_model
from online_demo.network import THRESHOLD
from online_demo.recognizer import UNSURE, Recognizer
from online_demo.show.controls import Controls
from online_demo.show.outputs import JsonLines, Output, check_video_path, open_video_output
from online_demo.show.window import Window, check_display
from online_demo.smoothing import SCORE_WINDOW_S, SmoothingOptions
from online_demo.web.messages import About
from ops.common.errors import InputError, at_least, positive, run_command
from ops.common.signals import StopSignals

if TYPE_CHECKING:
    from online_demo.web.server import PageServer

BROWSER = "browser"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m online_demo.main", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_argument_group("source")
    group.add_argument("--source", help=f"{CHOICES}, {BROWSER} (with --serve: only the browsers' cameras); default: "
                       "the first camera, else sample")  # fmt: skip
    group.add_argument("--rate", type=positive, metavar="HZ", help="frames a second for the network (default: as many "
                       "as it was trained on)")  # fmt: skip
    group.add_argument("--every", type=at_least(1), metavar="N", help="use every N-th frame, in place of --rate")
    group.add_argument("--size", type=_size, default=CameraOptions.size, metavar="WxH",
                       help="ask cameras for this size (default: 320x240)")  # fmt: skip
    group.add_argument("--fps", type=at_least(1), metavar="N", help="ask cameras for so many frames a second")
    group.add_argument("--loop", action=argparse.BooleanOptionalAction,
                       help="begin a file again when it ends (default: only the sample)")  # fmt: skip
    group.add_argument("--mirror", action=argparse.BooleanOptionalAction,
                       help="show a mirror image (default: only of cameras)")  # fmt: skip
    group.add_argument("--retry", type=_not_negative, default=RETRY_S, metavar="SECONDS",
                       help="try so long to open again what dropped (default: %(default)g)")  # fmt: skip
    group.add_argument("--timeout", type=positive, default=TIMEOUT_S, metavar="SECONDS",
                       help="give up on a source that is silent for so long (default: %(default)g)")  # fmt: skip
    group.add_argument("--max-frames", type=at_least(1), metavar="N", help="stop after N frames (default: never)")

    group = parser.add_argument_group("network")
    group.add_argument("--weights", metavar="FILE", help="an .onnx file of online_demo/compile.py, or an online "
                       "checkpoint, which needs PyTorch (default: the repository's)")  # fmt: skip
    group.add_argument("--jester", action="store_true", help="the published gesture network, fetched when needed")
    group.add_argument("--labels", metavar="FILE", help="class names, one a line (default: the checkpoint's)")
    group.add_argument("--backend", choices=BACKENDS, default="onnxruntime", help="default: %(default)s")
    group.add_argument("--library", type=Path, metavar="FILE", help="for tvm: made by online_demo/compile.py "
                       "(default: built for this machine)")  # fmt: skip
    group.add_argument("--int8", nargs="+", default=(), metavar="CLIP",
                       help="for onnxruntime: 8 bits, calibrated on these video files or folders")  # fmt: skip
    group.add_argument("--threads", type=at_least(1), metavar="N",
                       help="threads to compute with (default: the backend's choice)")  # fmt: skip

    group = parser.add_argument_group("smoothing, as published unless switched off")
    group.add_argument("--score-window", type=_not_negative, default=SCORE_WINDOW_S, metavar="SECONDS",
                       help="sum the scores of so long (default: %(default)s; 0: no sum)")  # fmt: skip
    group.add_argument("--threshold", type=_probability, metavar="P", help="certainty below which the label is "
                       f"'{UNSURE}' (default: the network's own, else {THRESHOLD:g}; 0: never)")  # fmt: skip
    group.add_argument("--no-vote", action="store_true", help="change the label at once, without a second opinion")
    group.add_argument("--no-mask", action="store_true", help="Jester: show all 27 classes as they are")

    group = parser.add_argument_group("output")
    group.add_argument("--no-window", action="store_true", help="no window; one line of JSON a result on stdout")
    group.add_argument("--full-screen", action="store_true", help="open the window in full screen")
    group.add_argument("--output", type=Path, metavar="FILE", help="write the annotated video: .mp4, .mov, .mkv")
    group.add_argument("--serve", metavar="[HOST:]PORT",
                       help="show it on a web page (default host: only this machine)")  # fmt: skip
    group.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                       help="answer requests to this name of the machine, too (may be given again)")  # fmt: skip
    group.add_argument("--cert", type=Path, metavar="FILE", help="serve https with this certificate (PEM), which "
                       "browsers want before they give a camera to another machine")  # fmt: skip
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key, if in a file of its own")
    return parser.parse_args(argv)


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"give it as 640x480, not {text}")
    return int(width), int(height)


def parse_address(text: str) -> tuple[str, int]:
    """`[HOST:]PORT` -> (host, port); without a host only this machine. IPv6 as [::1]:8000."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InputError(f"--serve {text}: give [HOST:]PORT, such as 8000 or 0.0.0.0:8000")
    return host, int(port)


def _check_options(args: argparse.Namespace) -> None:
    """Raise InputError before anything slow for options that cannot work together, or not here."""
    if args.source == BROWSER:
        if args.serve is None:
            raise InputError(f"--source {BROWSER} needs --serve, which shows the page for it")
        if args.output is not None:
            raise InputError("--output needs another --source: pictures from browsers are not kept")
    if args.serve is not None:
        parse_address(args.serve)
    elif args.allow_host or args.cert or args.key:
        raise InputError("--allow-host, --cert and --key are for the page: give --serve, too")
    if args.output is not None:
        check_video_path(args.output)
    if not args.no_window and args.serve is None:
        check_display()


def _make_server(args: argparse.Namespace, make_recognizer: Callable[[], Recognizer], about: About) -> PageServer:
    try:
        from online_demo.web.guard import tls_context
        from online_demo.web.server import PageServer
    except ImportError as error:
        raise InputError(f"--serve needs aiohttp ({error}): pip install -r requirements-demo.txt") from None
    tls = tls_context(args.cert, args.key)
    return PageServer(parse_address(args.serve), make_recognizer, about, allowed_hosts=args.allow_host, tls=tls)


def _open_outputs(
    args: argparse.Namespace,
    source: Source,
    server: PageServer | None,
    controls: Controls,
    stack: contextlib.ExitStack,
) -> list[Output]:
    """Open all outputs that the options ask for; at the end of `stack` the window is closed, the video finished."""
    outputs: list[Output] = []
    if args.no_window:
        outputs.append(JsonLines(sys.stdout))
    elif server is None:
        window = Window(controls, full_screen=args.full_screen)
        stack.callback(window.close)
        outputs.append(window)
    if server is not None:
        outputs.append(server)
    if args.output is not None:
        outputs.append(stack.enter_context(open_video_output(args.output, source.fps)))
    return outputs


def _playback(args: argparse.Namespace, source: Source) -> Playback:
    is_endless = source.name == "sample" and not args.no_window and args.output is None
    return Playback(
        paced=not args.no_window,
        repeat=is_endless if args.loop is None else args.loop,
        max_frames=args.max_frames,
        timeout_s=args.timeout,
    )


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    _check_options(args)
    camera = CameraOptions(args.size, args.fps, timeout_s=args.timeout, retry_s=args.retry)
    source = None if args.source == BROWSER else open_source(args.source, camera)
    with_torch = args.backend != "onnxruntime"
    model = load_model(
        args.weights, jester=args.jester, labels=args.labels, with_torch=with_torch, threads=args.threads
    )
    backend = make_backend(
        args.backend, model, threads=args.threads, library=args.library, int8_clips=args.int8, report=_report
    )
    rules = PLAIN if args.no_mask else rules_for(model.class_names)
    threshold = model.info.threshold if args.threshold is None else args.threshold
    smoothing = SmoothingOptions(args.score_window, rules, vote=not args.no_vote, threshold=threshold)

    def make_recognizer() -> Recognizer:
        return Recognizer(model, backend, smoothing, rate=args.rate, every=args.every)

    size = f"{model.info.input_size}x{model.info.input_size}"
    network = f"{model.path.name}, {len(model.class_names)} classes, {size}; {backend.name}"
    _report(f"{source.name if source else 'browsers only'}; {network}")
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(StopSignals(notice=""))
        server = None
        if args.serve is not None:
            names = shown_names(model.class_names, rules)
            rate = None if args.every else args.rate or model.info.frame_rate
            about = About(network, source and source.name, names, what_to_do(model.class_names), rate)
            server = stack.enter_context(_make_server(args, make_recognizer, about))
            _report(f"page: {server.url}")
        if source is None:
            while not stopped():
                time.sleep(0.1)
        else:
            controls = Controls(mirrored=source.mirrored if args.mirror is None else args.mirror)
            outputs = _open_outputs(args, source, server, controls, stack)
            run_source(source, make_recognizer(), outputs, _playback(args, source), stopped, controls)
    return stopped.exit_status if stopped() else 0


if __name__ == "__main__":
    run_command(main)
