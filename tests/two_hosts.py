"""Two hosts on one machine: two network namespaces with a cable between them, a torchrun agent on each.

    python -m tests.two_hosts [--epochs 5] [--kill] [-- OPTIONS OF main.py]

trains over both, on a few synthetic videos unless other options are given. `--kill` sends SIGKILL to the worker of the
second host in mid-epoch; the agents must then meet again, start new workers and continue from the last checkpoint.

Each namespace has its own interface, address, host name and hosts file, so that nothing can pass over loopback. Needs
root, `ip` (iproute2) and `unshare` (util-linux). The file system is shared, as the program requires of real hosts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
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
from tests.helpers import PROJECT, make_kinetics_tree, torchrun_worker

PORT = 29500
VARIABLES = {  # the third as scripts/dist_multi_machine.sh sets it
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
TINY = (
    "kinetics RGB --arch mobilenetv2 --shift --pretrain none --input_size 32 --num_segments 2 --num_class 2 -b 4 "
    "--lr 0.001 --dropout 0.5 --eval-freq 1 --save_every 1 -j 0"
)


def why_not() -> str | None:
    """What this machine lacks for two hosts; None if nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    try:
        with two_hosts():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"cannot make network namespaces with ip (iproute2): {getattr(error, 'stderr', '').strip() or error}"


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces that reach each other by name; yields the names."""
    mark = secrets.token_hex(2)
    hosts, ends = (f"tsm-{mark}-a", f"tsm-{mark}-b"), (f"v{mark}a", f"v{mark}b")
    addresses = [f"10.77.{int(mark[:2], 16)}.{number}" for number in (1, 2)]
    names = "".join(f"{address} {host}\n" for address, host in zip(addresses, hosts, strict=True))
    with contextlib.ExitStack() as undo:
        for host in hosts:
            _ip("netns", "add", host)
            undo.callback(_ip, "netns", "del", host)  # with its interfaces
            folder = Path("/etc/netns") / host  # `ip netns exec` puts these files over those in /etc
            folder.mkdir(parents=True)
            undo.callback(shutil.rmtree, folder)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        _ip("link", "add", ends[0], "netns", hosts[0], "type", "veth", "peer", "name", ends[1], "netns", hosts[1])
        for host, address, end in zip(hosts, addresses, ends, strict=True):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", host, "link", "set", end, "up")
            _ip("-n", host, "link", "set", "lo", "up")
        yield hosts


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def start_agent(host: str, head: str, arguments: Sequence[str], output: Path) -> subprocess.Popen:
    """Start one host's torchrun with one worker; what they print goes to a file."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--max_restarts=3"]
    agent += ["--rdzv_conf=last_call_timeout=5"]  # seconds to wait for more hosts than are needed (30)
    agent += ["--rdzv_backend=c10d", f"--rdzv_endpoint={head}:{PORT}", "--rdzv_id=tsm"]
    set_host_name = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
    with output.open("w") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, *set_host_name, *agent, str(PROJECT / "main.py"), *arguments],
            cwd=PROJECT,
            env={**os.environ, **VARIABLES},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def train(arguments: Sequence[str], out: Path, *, kill_at: str | None = None, limit_s: float = 7200) -> list[str]:
    """Train over two hosts, with what they print in `out`/{a,b}.txt; returns what happened, a line each.

    kill_at: the line of log.csv, by its beginning, after which the second host's worker gets SIGKILL. RuntimeError if
    an agent failed, the line did not come, or the job took more than `limit_s` seconds.
    """
    log, outputs = out / "log" / "run" / "log.csv", [out / "a.txt", out / "b.txt"]
    folders = ["--root_log", str(out / "log"), "--root_model", str(out / "model"), "--store_name", "run"]
    story, begin = [], time.monotonic()
    with two_hosts() as hosts:
        command = [*arguments, *folders, "-p", "1", "--resume", "auto"]
        agents = [start_agent(host, hosts[0], command, path) for host, path in zip(hosts, outputs, strict=True)]
        try:
            while any(agent.poll() is None for agent in agents) and time.monotonic() - begin < limit_s:
                if kill_at is not None and log.exists() and kill_at in log.read_text():
                    worker = torchrun_worker(agents[1].pid)
                    os.kill(worker, signal.SIGKILL)
                    story.append(f"SIGKILL to process {worker} of {hosts[1]} after {kill_at!r}")
                    kill_at = None
                time.sleep(0.005 if kill_at else 0.5)
        finally:
            for agent in agents:
                if agent.poll() is None:
                    os.killpg(agent.pid, signal.SIGTERM)
                agent.wait(timeout=60)
    text = "".join(path.read_text() for path in outputs)
    if kill_at is not None or any(agent.returncode for agent in agents):
        ends = [agent.returncode for agent in agents]
        raise RuntimeError(f"the agents ended with {ends} after {time.monotonic() - begin:.0f} s\n{text[-8000:]}")
    story += [line for line in text.splitlines() if line.startswith("Resumed from ")]
    return [*story, f"both agents ended with 0 after {time.monotonic() - begin:.0f} s"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--kill", action="store_true", help="kill a worker in the middle epoch")
    parser.add_argument("options", nargs="*", help="after `--`: what main.py is to train")
    args = parser.parse_args(argv)
    if reason := why_not():
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as temp:
        root = make_kinetics_tree(Path(temp) / "data", num_videos=13, num_frames=6, size=(48, 40))
        options = args.options or [*shlex.split(TINY), "--root_dataset", str(root)]
        kill_at = f"Epoch: [{args.epochs // 2}][1/" if args.kill else None
        print(*train([*options, "--epochs", str(args.epochs)], Path(temp), kill_at=kill_at), sep="\n", flush=True)
        for row in read_epochs(Path(temp) / "log/run/epochs.csv"):
            print("epoch {epoch:.0f}: training loss {train_loss:.4f}, validation {test_top1:.2f} %".format(**row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
