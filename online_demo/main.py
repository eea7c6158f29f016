"""Live recognition with the online TSM: python -m online_demo.main

With no options: the first camera, or the clip in the repository where there is none; the small network in the
repository (moving digits); ONNX Runtime; a window (q or Esc quits, f toggles full screen).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from online_demo.backends.base import Backend
from online_demo.backends.choose import BACKENDS, make_backend
from online_demo.camera.capture import Capture, Captured
from online_demo.camera.sources import CHOICES, TIMEOUT_S, Source, open_source
from online_demo.gestures import PLAIN, rules_for
from online_demo.model import DemoModel, load_model
from online_demo.recognizer import Recognizer, Result
from online_demo.show.draw import Canvas
from online_demo.show.outputs import JsonLines, Output, Shown, check_video_path, open_video_output
from online_demo.show.window import Window, check_display
from online_demo.smoothing import SCORE_WINDOW, SmoothingOptions
from ops.common.errors import InputError, at_least, run_command
from ops.common.signals import StopSignals

if TYPE_CHECKING:
    from online_demo.web.server import PageServer

BROWSER = "browser"  # the source that is none of ours

_FPS_WINDOW = 30  # frames


class Clock:
    """Frames a second over the last frames, and the time of each frame in its stream."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._shown_at: deque[float] = deque(maxlen=_FPS_WINDOW)
        self._began: float | None = None

    def tick(self) -> float:
        """A frame is shown now; returns frames a second, 0 until there are two."""
        self._shown_at.append(time.perf_counter())
        span = self._shown_at[-1] - self._shown_at[0]
        return (len(self._shown_at) - 1) / span if span > 0 else 0.0

    def time_s(self, frame: Captured, first_number: int = 0) -> float:
        """Seconds since the stream began: by the clock for a live source, by the frame's number for others."""
        if not self._source.live:
            return (first_number + frame.number) / self._source.fps
        if self._began is None:
            self._began = frame.time_s
        return frame.time_s - self._began


def run_source(
    source: Source,
    recognizer: Recognizer,
    outputs: Sequence[Output],
    *,
    every: int,
    mirrored: bool,
    paced: bool,
    loop: bool,
    max_frames: int | None,
    timeout_s: float,
    stopped: Callable[[], bool],
) -> int:
    """Capture, recognise, draw and show until the source ends, an output has enough, or `stopped`.

    every: one frame of so many goes to the network. paced: show a file at its own rate. loop: begin it again.

    Returns:
        The number of frames shown.
    """
    clock, canvas = Clock(source), Canvas(mirrored=mirrored)
    needs_picture = any(output.needs_picture for output in outputs)
    num_shown, first_number = 0, 0
    while True:  # each time through the source
        result: Result | None = None
        next_used = 0
        began = time.perf_counter()
        with Capture(source, timeout_s=timeout_s) as capture:
            while not stopped():
                frame = capture.read(stopped)
                if frame is None:
                    break
                if paced and not source.live:
                    time.sleep(max(0.0, began + frame.number / source.fps - time.perf_counter()))
                is_new = frame.number >= next_used
                if is_new:
                    result, next_used = recognizer(frame.image), frame.number + every
                fps, picture, draw_ms = clock.tick(), None, 0.0
                if needs_picture:
                    draw_began = time.perf_counter()
                    picture = canvas.draw(frame.image, result, _details(fps, frame, result))
                    draw_ms = 1e3 * (time.perf_counter() - draw_began)
                number = first_number + frame.number
                time_s = clock.time_s(frame, first_number)
                shown = Shown(number, time_s, result, is_new, frame.capture_ms, draw_ms, fps)
                num_shown += 1
                wanted = [output.show(picture, shown) for output in outputs]
                if not all(wanted) or num_shown == max_frames:
                    return num_shown
        if stopped() or not loop or source.live:
            return num_shown
        first_number = number + 1
        recognizer.reset()


def _details(fps: float, frame: Captured, result: Result | None) -> str:
    network = "-" if result is None else f"{result.network_ms:.1f} ms"
    return f"{fps:.0f} frames/s\ncapture {frame.capture_ms:.1f} ms, network {network}"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m online_demo.main", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_argument_group("source")
    group.add_argument("--source", help=f"{CHOICES}, {BROWSER} (with --serve: the browsers' cameras alone)")
    group.add_argument(
        "--every", type=at_least(1), metavar="N", help="use every N-th frame (2; 1 for a folder of frames)"
    )
    group.add_argument("--loop", action=argparse.BooleanOptionalAction, help="begin a file again (default: the sample)")
    group.add_argument("--mirror", action=argparse.BooleanOptionalAction, help="show a mirror image (default: cameras)")
    group.add_argument("--timeout", type=_seconds, default=TIMEOUT_S, metavar="SECONDS",
                       help="give up on a source that is silent for so long (%(default)g)")  # fmt: skip
    group.add_argument("--max-frames", type=at_least(1), metavar="N", help="stop after N frames")

    group = parser.add_argument_group("network")
    group.add_argument("--weights", metavar="FILE", help="an online checkpoint, or the published streaming file")
    group.add_argument("--jester", action="store_true", help="the published gesture network, fetched when needed")
    group.add_argument("--labels", metavar="FILE", help="class names, a line each (default: the checkpoint's)")
    group.add_argument("--backend", choices=BACKENDS, default="onnxruntime")
    group.add_argument("--library", type=Path, metavar="FILE", help="for tvm: made by online_demo/compile.py")
    group.add_argument("--int8", nargs="+", default=(), metavar="CLIP",
                       help="for onnxruntime: 8 bits, calibrated on these video files or folders")  # fmt: skip
    group.add_argument("--threads", type=at_least(1), help="to compute with (default: the backend's choice)")

    group = parser.add_argument_group("smoothing, as published unless switched off")
    group.add_argument("--score-window", type=at_least(1), default=SCORE_WINDOW, metavar="N",
                       help="sum the scores of the last N results (%(default)s; 1: none)")  # fmt: skip
    group.add_argument("--no-vote", action="store_true", help="change the label at once, without a second opinion")
    group.add_argument("--no-mask", action="store_true", help="Jester: show all 27 classes as they are")

    group = parser.add_argument_group("output")
    group.add_argument("--no-window", action="store_true", help="no window; a line of JSON a result on stdout")
    group.add_argument("--full-screen", action="store_true")
    group.add_argument("--output", type=Path, metavar="FILE", help="write the annotated video: .mp4, .mov, .mkv")
    group.add_argument("--serve", metavar="[HOST:]PORT", help="show it on a web page (host: this machine alone)")
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value


@contextlib.contextmanager
def _open_outputs(args: argparse.Namespace, source: Source | None, server: PageServer | None) -> Iterator[list[Output]]:
    """All that the options ask for, closed behind the block, the video finished."""
    with contextlib.ExitStack() as stack:
        outputs: list[Output] = []
        if args.no_window:
            outputs.append(JsonLines(sys.stdout))
        elif server is None:
            window = Window(full_screen=args.full_screen)
            stack.callback(window.close)
            outputs.append(window)
        if server is not None:
            outputs.append(server)
        if args.output is not None and source is not None:
            outputs.append(stack.enter_context(open_video_output(args.output, source.fps)))
        yield outputs


def _check_options(args: argparse.Namespace) -> None:
    """Raise InputError before anything slow for options that cannot work together, or not here."""
    if args.source == BROWSER:
        if args.serve is None:
            raise InputError(f"--source {BROWSER} needs --serve, which shows the page for it")
        if args.output is not None:
            raise InputError("--output needs a source of its own: the browsers' pictures are not kept")
    if args.output is not None:
        check_video_path(args.output)
    if not args.no_window and args.serve is None:
        check_display()


def smoothing_options(args: argparse.Namespace, model: DemoModel) -> SmoothingOptions:
    """What `--score-window`, `--no-vote` and `--no-mask` ask for."""
    rules = PLAIN if args.no_mask else rules_for(model.class_names)
    return SmoothingOptions(score_window=args.score_window, rules=rules, vote=not args.no_vote)


def parse_address(text: str) -> tuple[str, int]:
    """`[HOST:]PORT` -> (host, port); without a host this machine alone. IPv6 as [::1]:8000."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InputError(f"--serve {text}: give [HOST:]PORT, such as 8000 or 0.0.0.0:8000")
    return host, int(port)


def _make_server(address: tuple[str, int], make_recognizer: Callable[[], Recognizer]) -> PageServer:
    try:
        from online_demo.web.server import PageServer
    except ImportError as error:
        raise InputError(f"--serve needs aiohttp ({error}): pip install -r requirements-demo.txt") from None
    return PageServer(address, make_recognizer)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    _check_options(args)
    address = None if args.serve is None else parse_address(args.serve)
    source = None if args.source == BROWSER else open_source(args.source, timeout_s=args.timeout)
    model = load_model(args.weights, jester=args.jester, labels=args.labels)
    backend: Backend = make_backend(
        args.backend, model, threads=args.threads, library=args.library, int8_clips=args.int8, report=_say
    )
    smoothing = smoothing_options(args, model)
    _say(
        f"{source.name if source else 'browsers only'}; {model.path.name}, {len(model.class_names)} classes, "
        f"{model.input_size}x{model.input_size}; {backend.name}"
    )
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(StopSignals(notice=""))
        server = None
        if address is not None:
            server = stack.enter_context(_make_server(address, lambda: Recognizer(model, backend, smoothing)))
            _say(f"page: {server.url}")
        if source is None:
            while not stopped():
                time.sleep(0.1)
        else:
            outputs = stack.enter_context(_open_outputs(args, source, server))
            endless = source.name == "sample" and not args.no_window and args.output is None
            run_source(
                source,
                Recognizer(model, backend, smoothing),
                outputs,
                every=args.every or source.every,
                mirrored=source.mirrored if args.mirror is None else args.mirror,
                paced=not args.no_window,
                loop=endless if args.loop is None else args.loop,
                max_frames=args.max_frames,
                timeout_s=args.timeout,
                stopped=stopped,
            )
    return stopped.exit_status if stopped() else 0


if __name__ == "__main__":
    run_command(main)
