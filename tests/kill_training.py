"""Kill a real training at random moments, go on with `--resume auto`, and compare with the run that nobody killed.

    python -m tests.kill_training [--kills 30] [--seed 0]

Each trial is a training of its own, by the command of a user with two loader workers, on moving digits filmed for the
purpose. It gets SIGKILL at a random moment, one in three trials a second time behind its restart; it must then end
bit-identical in weights, momentum, random states, log.csv, epochs.csv and TensorBoard curves, in the best checkpoint,
too, and leave no unfinished file and no process behind. A process that is about to die is frozen first (SIGSTOP), so
that the table can tell what it was doing.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ops.common.files import is_temporary
from ops.training.log import read_epochs
from tests.helpers import PROJECT, run_cli
from tests.training.test_log import read_events

OPTIONS = (
    "moving_digits RGB --arch mobilenetv2 --pretrain none --npb --input_size 32 --num_segments 4 -b 4 --lr 0.005 "
    "--shift --dropout 0.5 --clip-gradient 5 --lr_type cos --epochs 3 --eval-freq 1 -p 1 --save_every 2 -j 2 --seed 3 "
    "--store_name run --resume auto"
)
AIMS = ("anywhere", "start", "step", "checkpoint", "validation", "log")
_LIMIT_S = 600


# --- what must be equal -----------------------------------------------------------------------------------------------


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
    return found + [f"{path.name} left behind" for path in paths if not re.fullmatch(kept, path.name)]


# --- a training to be killed ------------------------------------------------------------------------------------------


class Training:
    """The real command as a process of its own, which writes to `folder`/{log,model}/run.

    `prefix`: a command that starts it, such as `unshare ...`.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, *, prefix: Sequence[str] = ()) -> None:
        self.folder, self._model, self._log = folder, folder / "model" / "run", folder / "log" / "run"
        folder.mkdir(parents=True, exist_ok=True)
        self._left_before = self._unfinished()
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

    def errors(self) -> str:
        """What it has printed to stderr."""
        return self._err.read_text()

    def _unfinished(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return {path.name for path in self._model.iterdir() if is_temporary(path)}
        return set()

    def saving(self) -> bool:
        """Whether it is writing a checkpoint."""
        return bool(self._unfinished() - self._left_before)

    def log_sizes(self) -> list[int]:
        """Sizes of its log files."""
        if not self._log.is_dir():
            return []
        return [path.stat().st_size for path in sorted(self._log.iterdir()) if path.is_file()]

    def wait_for(self, condition: Callable[[], bool], pause_s: float = 0.002) -> bool:
        """Wait for something; False if the process ended before.

        Raises:
            TimeoutError: neither came. A second in which this process did not run, either, does not count.
        """
        waited, before = 0.0, time.monotonic()
        while not condition():
            if self.process.poll() is not None:
                return False
            time.sleep(pause_s)
            now = time.monotonic()
            waited, before = waited + min(now - before, 1.0), now
            if waited > _LIMIT_S:
                raise TimeoutError(f"a training hangs: {self.lines()[-1:]}")
        return self.process.poll() is None

    def end(self) -> int:
        """Wait for its end; returns the exit status. TimeoutError if it does not come."""
        self.wait_for(lambda: False, 0.05)
        return self.process.wait()

    def kill(self, *, workers_too: bool) -> str | None:
        """SIGKILL, for the process or its whole group; what it was doing, None if it had ended already."""
        if self.process.poll() is not None:
            return None
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(0.001)
        phase = self._phase()
        (os.killpg if workers_too else os.kill)(self.process.pid, signal.SIGKILL)
        return phase if self.process.wait() == -signal.SIGKILL else None

    def _phase(self) -> str:
        if self.saving():
            return "writing a checkpoint"
        lines = [line for line in self.lines() if line]
        if not any(re.match(r"Epoch: |Test", line) for line in lines):
            return "start"
        if lines[-1].startswith("Test:"):
            return "validation"
        step = re.match(r"Epoch: \[(\d+)\]\[(\d+)/(\d+)\]", lines[-1])
        if step is None or int(step[2]) + 1 == int(step[3]):
            return "end of an epoch"  # curves, rows, the best checkpoint
        return f"epoch {step[1]}, step {int(step[2]) + 1}"

    def orphans(self) -> list[int]:
        """Ids of processes that it left behind, after the time that they need to notice."""
        end = time.monotonic() + 30
        while time.monotonic() < end and (left := _group(self.process.pid)):
            time.sleep(0.1)
        return left


def _group(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


# --- trials -----------------------------------------------------------------------------------------------------------


@dataclass
class Kill:
    """A moment: what the process was doing, and how old it was."""

    phase: str
    seconds: float


def kill_somewhere(training: Training, rng: random.Random, aim: str, *, whole_s: float) -> Kill | None:
    """Kill a training at a random moment of the kind `aim`; None if it ended first.

    Args:
        whole_s: how long an undisturbed training takes.
    """
    if aim == "start":
        moment = rng.uniform(0, 0.4 * whole_s)
        training.wait_for(lambda: training.seconds > moment)
    elif aim == "anywhere":
        moment = rng.uniform(0, whole_s)
        training.wait_for(lambda: training.seconds > moment)
    elif aim == "checkpoint":
        for _ in range(rng.randint(1, 4)):
            training.wait_for(lambda: not training.saving(), 0.0)
            training.wait_for(training.saving, 0.0)
        time.sleep(rng.uniform(0, 0.02))
    elif aim == "log":
        for _ in range(rng.randint(1, 20)):
            sizes = training.log_sizes()
            training.wait_for(lambda before=sizes: training.log_sizes() != before, 0.0)
    else:
        kind, number = ("Test:", rng.randint(1, 4)) if aim == "validation" else ("Epoch:", rng.randint(1, 8))
        training.wait_for(lambda: sum(line.startswith(kind) for line in training.lines()) >= number)
        time.sleep(rng.uniform(0, 0.15))
    seconds = training.seconds
    phase = training.kill(workers_too=rng.random() < 0.5)
    if aim == "log" and phase is not None:
        phase += ", as a log file grew"
    return None if phase is None else Kill(phase, seconds)


def trial(
    arguments: Sequence[str], folder: Path, whole: Path, aims: Sequence[str], *, rng: random.Random, whole_s: float
) -> tuple[list[Kill], list[str]]:
    """Kill a training once for each of `aims`, let it end, compare; returns the kills, and what was wrong."""
    kills, wrong = [], []
    for aim in aims:
        training = Training(arguments, folder)
        kill = kill_somewhere(training, rng, aim, whole_s=whole_s)
        kills += [kill] if kill else []
        wrong += [f"process {left} left behind" for left in training.orphans()]
    last = Training(arguments, folder)
    try:
        status = last.end()
    except TimeoutError:
        os.killpg(last.process.pid, signal.SIGKILL)
        return kills, [*wrong, "the resumed run hangs"]
    if status:
        return kills, [*wrong, f"exit status {status}: {last.errors()[-500:]}"]
    return kills, wrong + differences(folder, whole)


def film_digits(root: Path) -> Path:
    """A data set root with a few moving digits, made as the quick start makes them."""
    data = root / "moving_digits"
    for command in (
        f"make_moving_digits.py --out {data}/videos --train 32 --val 16 --size 48 --frames 12 16 --jobs 1",
        f"vid2img_kinetics.py {data}/videos {data}/images --height 48 --jobs 1",
        f"gen_label_kinetics.py {data}/images --out {data}/labels --from_folders",
    ):
        result = run_cli([f"tools/{command.split()[0]}", *shlex.split(command)[1:]])
        if result.returncode:
            raise RuntimeError(result.stderr)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each kill; 0 if every trial ended like the undisturbed run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="trials (a third of them is killed twice)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temp:
        root, whole = film_digits(Path(temp) / "data"), Path(temp) / "whole"
        arguments = [*shlex.split(OPTIONS), "--root_dataset", str(root)]
        undisturbed = Training(arguments, whole)
        if undisturbed.end():
            print(undisturbed.errors())
            return 1
        whole_s = undisturbed.seconds
        print(f"undisturbed: {whole_s:.1f} s, {len(undisturbed.lines())} lines\n")
        print("| trial | killed in (after s of its process) | bit-identical |\n| --- | --- | --- |", flush=True)
        phases, grown, num_equal = collections.Counter(), 0, 0
        for number in range(1, args.kills + 1):
            aims = [AIMS[number % len(AIMS)]] + ([rng.choice(AIMS)] if rng.random() < 1 / 3 else [])
            folder = Path(temp) / f"trial{number}"
            kills, wrong = [], []
            while not kills and not wrong:  # it may have ended before its moment came
                shutil.rmtree(folder, ignore_errors=True)
                kills, wrong = trial(arguments, folder, whole, aims, rng=rng, whole_s=whole_s)
            grown += sum(", as" in kill.phase for kill in kills)
            phases.update(re.sub(r"epoch \d+, step \d+", "a step", kill.phase.split(", as")[0]) for kill in kills)
            num_equal += not wrong
            told = ", then ".join(f"{kill.phase} ({kill.seconds:.1f})" for kill in kills)
            print(f"| {number} | {told} | {'NO: ' + '; '.join(wrong) if wrong else 'yes'} |", flush=True)
            shutil.rmtree(folder)
    counts = ", ".join(f"{count} in {phase}" for phase, count in phases.most_common())
    print(f"\n{num_equal} of {args.kills} trials bit-identical; {phases.total()} kills: {counts}")
    print(f"{grown} of them just as a log file grew")
    return int(num_equal < args.kills)


if __name__ == "__main__":
    sys.exit(main())
