"""Kill a real training at random moments, resume it with `--resume auto`, and compare with an undisturbed run.

    python -m tests.kill_training [--kills 30] [--seed 0]

Each trial is a training of its own, by the command of a user with two loader workers, on synthetic videos. It gets
SIGKILL at a random moment, one in three trials a second time after its restart; it must then end bit-identical in
weights, momentum, random states, log.csv, epochs.csv and TensorBoard curves, in the best checkpoint, too, and leave no
unfinished file and no process.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ops.training.log import read_epochs
from tests.helpers import PROJECT, make_kinetics_tree
from tests.training.test_log import read_events

OPTIONS = (
    "kinetics RGB --num_class 2 --arch mobilenetv2 --pretrain none --npb --input_size 32 --num_segments 4 -b 4 "
    "--lr 0.005 --shift --dropout 0.5 --clip-gradient 5 --lr_type cos --epochs 3 --eval-freq 1 -p 1 --save_every 2 "
    "-j 2 --seed 3 --store_name run --resume auto"
)
AIMS = ("start", "line", "checkpoint")  # a random moment of the start, after a line of log, while a file is written
LIMIT_S = 600


def same(ours: Any, expected: Any) -> bool:
    """Whether two nested values with tensors in them are equal to the last bit."""
    if isinstance(expected, torch.Tensor):
        return torch.equal(ours, expected)
    if isinstance(expected, dict):
        return ours.keys() == expected.keys() and all(same(ours[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(ours) == len(expected) and all(map(same, ours, expected))
    return ours == expected


def differences(folder: Path, whole: Path) -> list[str]:
    """What differs between two runs in `folder`/{log,model}/run: weights, log, rows, curves; all but times."""
    found = []
    for name in ("ckpt.pth.tar", "ckpt.best.pth.tar"):
        ours, expected = (torch.load(path / "model" / "run" / name, weights_only=True) for path in (folder, whole))
        for key in ("state_dict", "epoch", "best_prec1", "optimizer"):
            if not same(ours[key], expected[key]):
                found.append(f"{key} of {name}")
        if not same(ours["training"]["rng"], expected["training"]["rng"]):
            found.append(f"random states of {name}")
    logs = [path / "log" / "run" for path in (folder, whole)]
    texts = [re.sub(r"(Time|Data) [\d.]+ \([\d.]+\)|eta .*", r"\1", (log / "log.csv").read_text()) for log in logs]
    rows = [[{**row, "seconds": 0} for row in read_epochs(log / "epochs.csv")] for log in logs]
    events = [read_events(log) + read_events(log / "steps") for log in logs]
    for name, (ours, expected) in {"log.csv": texts, "epochs.csv": rows, "TensorBoard curves": events}.items():
        if ours != expected:
            found.append(name)
    # A run that died before its first checkpoint leaves its few lines in `earlier-N`.
    kept = r"ckpt(\.best)?\.pth\.tar|log\.csv|epochs\.csv|args\.txt|steps|events\.out\.tfevents\..*|earlier-\d+"
    paths = [path for part in ("model", "log") for path in (folder / part / "run").iterdir()]
    return found + [f"{path.name} left over" for path in paths if not re.fullmatch(kept, path.name)]


class Training:
    """The real command as a process, which writes to `folder`/{log,model}/run; prefix: such as `unshare ...`."""

    def __init__(self, arguments: Sequence[str], folder: Path, *, prefix: Sequence[str] = ()) -> None:
        self._model = folder / "model" / "run"
        folder.mkdir(parents=True, exist_ok=True)
        self._unfinished_before = self._unfinished()
        self._begin = time.monotonic()
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        folders = ["--root_log", str(folder / "log"), "--root_model", str(folder / "model")]
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, str(PROJECT / "main.py"), *arguments, *folders],
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Age of the process."""
        return time.monotonic() - self._begin

    def lines(self) -> list[str]:
        """What it has printed; a line each."""
        return self._out.read_text().splitlines()

    def progress(self) -> list[str]:
        """Beginnings of the lines of its log: "Epoch" for a step, "Test" in validation, "Testing Results"."""
        return [line.split(":")[0] for line in self.lines() if line.startswith(("Epoch:", "Test"))]

    def errors(self) -> str:
        """What it has printed to stderr."""
        return self._err.read_text()

    def _unfinished(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return {path.name for path in self._model.iterdir() if path.name.startswith(".tmp-")}
        return set()

    def saving(self) -> bool:
        """Whether it is writing a checkpoint."""
        return bool(self._unfinished() - self._unfinished_before)

    def wait_for(self, condition: Callable[[], bool], pause_s: float = 0.002) -> bool:
        """Wait for something; False if the process ended before, TimeoutError if neither came."""
        while not condition():
            if self.process.poll() is not None:
                return False
            if self.seconds > LIMIT_S:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise TimeoutError(f"a training hangs: {self.lines()[-1:]}")
            time.sleep(pause_s)
        return self.process.poll() is None

    def end(self) -> int:
        """Wait for its end; returns the exit status."""
        self.wait_for(lambda: False, 0.05)
        return self.process.wait()

    def kill(self, *, workers_too: bool) -> str | None:
        """SIGKILL, for the process or its whole group; what it was doing, None if it had ended already."""
        if self.process.poll() is not None:
            return None
        os.kill(self.process.pid, signal.SIGSTOP)  # nothing changes between the look and the kill
        doing = "writing a checkpoint" if self.saving() else ["start", *self.progress()][-1]
        (os.killpg if workers_too else os.kill)(self.process.pid, signal.SIGKILL)
        return doing if self.process.wait() == -signal.SIGKILL else None

    def left_over(self) -> list[str]:
        """Process ids of its session that outlive it by more than the time they need to notice."""
        end, found = time.monotonic() + 30, ["unknown"]
        while found and time.monotonic() < end:
            time.sleep(0.1)
            found = []
            for path in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
                    found += [path.parent.name] if int(session) == self.process.pid and state != "Z" else []
        return found


def kill_somewhere(training: Training, rng: random.Random, aim: str, *, whole_s: float) -> str | None:
    """Kill a training at a random moment; says what it was doing, None if it ended first."""
    if aim == "start":
        moment = rng.uniform(0, 0.4 * whole_s)
        training.wait_for(lambda: training.seconds > moment)
    elif aim == "line":
        number = rng.randint(1, 30)
        training.wait_for(lambda: len(training.progress()) >= number)
        time.sleep(rng.uniform(0, 0.1))
    else:
        for _ in range(rng.randint(1, 4)):
            training.wait_for(lambda: not training.saving(), 0.0)
            training.wait_for(training.saving, 0.0)
        time.sleep(rng.uniform(0, 0.02))
    return training.kill(workers_too=rng.random() < 0.5)


def trial(
    arguments: Sequence[str], folder: Path, whole: Path, aims: Sequence[str], *, rng: random.Random, whole_s: float
) -> tuple[list[str], list[str]]:
    """Kill a training once for each of `aims`, let it end, compare; returns the kills, and what was wrong.

    whole_s: seconds that an undisturbed training takes.
    """
    kills, wrong = [], []
    for aim in aims:
        training = Training(arguments, folder)
        kills += filter(None, [kill_somewhere(training, rng, aim, whole_s=whole_s)])
        wrong += [f"process {process} left running" for process in training.left_over()]
    status = (last := Training(arguments, folder)).end()
    wrong += [f"exit status {status}: {last.errors()[-500:]}"] if status else differences(folder, whole)
    return kills, wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each trial; 0 if all ended like the undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="trials (one in three is killed twice)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng, kinds, num_equal = random.Random(args.seed), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as temp:
        whole = Path(temp) / "whole"
        root = make_kinetics_tree(Path(temp) / "data", num_videos=24, num_frames=12, size=(64, 48))
        arguments = [*shlex.split(OPTIONS), "--root_dataset", str(root)]
        undisturbed = Training(arguments, whole)
        assert undisturbed.end() == 0, undisturbed.errors()
        whole_s = undisturbed.seconds
        print(
            f"undisturbed: {whole_s:.1f} s\n\n| trial | killed in, or after a line | bit-identical |\n|---|---|---|",
            flush=True,
        )
        for number in range(1, args.kills + 1):
            aims = rng.sample(AIMS, 1 if number % 3 else 2)
            kills, wrong = [], []
            while not kills and not wrong:  # it may have ended before its moment came
                with tempfile.TemporaryDirectory(dir=temp) as folder:
                    kills, wrong = trial(arguments, Path(folder), whole, aims, rng=rng, whole_s=whole_s)
            kinds.update(kills)
            num_equal += not wrong
            outcome = f"NO: {'; '.join(wrong)}" if wrong else "yes"
            print(f"| {number} | {', then '.join(kills)} | {outcome} |", flush=True)
    print(f"\n{num_equal} of {args.kills} trials bit-identical; {kinds.total()} kills: {dict(kinds)}")
    return int(num_equal < args.kills)


if __name__ == "__main__":
    sys.exit(main())
