"""Two hosts on one machine: two network namespaces with a cable between them, a torchrun agent on each.

    python -m tests.two_hosts [--root quickstart] [--epochs 5] [--kill] [--out FOLDER]

trains the quick start's TSM over both and evaluates it; `--root` is the folder that `scripts/quickstart.sh` filled, and
without it a few synthetic videos do. `--kill` sends SIGKILL to the worker of the second host in mid-epoch; the agents
must then meet again, start new workers and go on from the last checkpoint, without any help.

Each namespace has its own interface, address, host name and hosts file, so that nothing can pass over loopback. Needs
root, `ip` (iproute2) and `unshare` (util-linux). What is not apart: the file system. The program assumes as much of
real hosts, too: checkpoints and data in the same folders on all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.training.log import read_epochs
from tests.helpers import PROJECT, make_kinetics_tree, run_cli, torchrun_worker

PORT = 29500
RECIPE = (  # of scripts/digits.sh
    "--arch resnet18 --pretrain none --num_segments 8 --input_size 40 --npb --dropout 0.2 --batch-size 16 --lr 0.005 "
    "--lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 --eval-freq 1 --shift --shift_div 8 --shift_place blockres -j 2"
)
TINY = (
    "--arch mobilenetv2 --shift --pretrain none --input_size 32 --num_segments 2 --num_class 2 -b 4 --lr 0.001 "
    "--dropout 0.5 --eval-freq 1 -p 1 -j 0"
)


def why_not() -> str | None:
    """What this machine lacks for two hosts; None if nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)}"
    try:
        with two_hosts():
            return None
    except (subprocess.CalledProcessError, OSError) as error:
        return f"cannot make network namespaces: {(getattr(error, 'stderr', None) or str(error)).strip()}"


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces that reach each other by name; yields the names."""
    mark = secrets.token_hex(2)
    hosts = (f"tsm-{mark}-a", f"tsm-{mark}-b")
    addresses = [f"10.77.{int(mark[:2], 16)}.{number}" for number in (1, 2)]
    table = "127.0.0.1 localhost\n" + "".join(f"{a} {h}\n" for a, h in zip(addresses, hosts, strict=True))
    folders = [Path("/etc/netns") / host for host in hosts]  # `ip netns exec` puts these files over those in /etc
    with contextlib.ExitStack() as undo:
        for host, folder in zip(hosts, folders, strict=True):
            _ip("netns", "add", host)
            undo.callback(_ip, "netns", "del", host)  # takes the interfaces along
            folder.mkdir(parents=True)
            undo.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(table)
        ends = (f"v{mark}a", f"v{mark}b")
        _ip("link", "add", ends[0], "netns", hosts[0], "type", "veth", "peer", "name", ends[1], "netns", hosts[1])
        for host, address, end in zip(hosts, addresses, ends, strict=True):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", host, "link", "set", end, "up")
            _ip("-n", host, "link", "set", "lo", "up")
        yield hosts


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def start(host: str, head: str, arguments: Sequence[str], output: Path) -> subprocess.Popen:
    """One host's torchrun agent, a worker under it; what they print goes to a file."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--max_restarts=3"]
    agent += ["--rdzv_conf=last_call_timeout=5"]  # seconds to wait for more hosts than are needed (30)
    agent += ["--rdzv_backend=c10d", f"--rdzv_endpoint={head}:{PORT}", "--rdzv_id=tsm"]
    name_it = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
    with output.open("w") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, *name_it, *agent, str(PROJECT / "main.py"), *arguments],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def train(arguments: Sequence[str], out: Path, *, kill_at: str | None = None, limit_s: float = 7200) -> list[str]:
    """Train over two hosts, with what they print in `out`/{a,b}.txt; returns what happened, a line each.

    Args:
        kill_at: the line of log.csv, by its beginning, behind which the second host's worker gets SIGKILL.

    Raises:
        RuntimeError: an agent failed.
    """
    log = out / "log" / "run" / "log.csv"
    folders = ["--root_log", str(out / "log"), "--root_model", str(out / "model"), "--store_name", "run"]
    outputs = [out / "a.txt", out / "b.txt"]
    story, begin = [], time.monotonic()
    with two_hosts() as hosts:
        command = [*arguments, *folders, "--resume", "auto"]
        agents = [start(host, hosts[0], command, path) for host, path in zip(hosts, outputs, strict=True)]
        try:
            while any(agent.poll() is None for agent in agents):
                if time.monotonic() - begin > limit_s:
                    raise RuntimeError(f"not done in {limit_s:.0f} s; see {outputs[0]}")
                if kill_at is not None and log.exists() and kill_at in log.read_text():
                    worker = torchrun_worker(agents[1].pid)
                    os.kill(worker, signal.SIGKILL)
                    story.append(f"SIGKILL to process {worker} of {hosts[1]} behind {kill_at!r}")
                    kill_at = None
                time.sleep(0.005 if kill_at else 0.5)
        finally:
            living = [agent for agent in agents if agent.poll() is None]
            for agent in living:
                os.killpg(agent.pid, signal.SIGTERM)
            for agent in living:
                try:
                    agent.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    os.killpg(agent.pid, signal.SIGKILL)
    for agent, path in zip(agents, outputs, strict=True):
        if agent.returncode:
            raise RuntimeError(f"an agent ended with {agent.returncode}:\n{path.read_text()[-4000:]}")
    if kill_at is not None:
        raise RuntimeError(f"no line {kill_at!r} came: nothing was killed")
    resumed = [line for path in outputs for line in path.read_text().splitlines() if line.startswith("Resumed from ")]
    return story + resumed + [f"both agents ended with 0 after {time.monotonic() - begin:.0f} s"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of scripts/quickstart.sh (default: synthetic videos)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--kill", action="store_true", help="kill a worker in the middle of the middle epoch")
    parser.add_argument("--out", type=Path, help="empty folder for log and checkpoints (default: a temporary one)")
    args = parser.parse_args(argv)
    reason = why_not()
    if reason:
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as temp:
        out = (args.out or Path(temp)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        if args.root:
            num_train = len((args.root / "moving_digits/labels/train_videofolder.txt").read_text().splitlines())
            num_steps, name, options = num_train // 16, "moving_digits", f"{RECIPE} -p 10 --save_every 20"
        else:
            make_kinetics_tree(out / "data", num_videos=13, num_frames=6, size=(48, 40))
            num_steps, name, options = 3, "kinetics", f"{TINY} --save_every 1"
        root = (args.root or out / "data").resolve()
        step = num_steps // 2 // 10 * 10 if args.root else 1
        arguments = [name, "RGB", "--root_dataset", str(root), *shlex.split(options), "--epochs", str(args.epochs)]
        kill_at = f"Epoch: [{args.epochs // 2}][{step}/{num_steps}]" if args.kill else None
        print(*train(arguments, out, kill_at=kill_at), sep="\n", flush=True)
        for row in read_epochs(out / "log/run/epochs.csv"):
            print("epoch {epoch:.0f}: training loss {train_loss:.4f}, validation {test_top1:.2f} %".format(**row))
        if args.root:
            weights = out / "model/run/ckpt.best.pth.tar"
            evaluation = f"--weights {weights} --test_segments 8 --batch_size 16 -j 2"
            result = run_cli(["test_models.py", name, "--root_dataset", root, *shlex.split(evaluation)], timeout=1800)
            print("\n".join(re.findall(r"\d+ of \d+ videos|Overall .*", result.stdout)) or result.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
