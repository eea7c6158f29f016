"""Two processes (gloo, CPU) against one with the same global batch; torchrun with the real command, a worker killed.

Run as a program, this file is one process of the job.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ops.checkpoint.options import ModelOptions
from ops.common.distributed import Process, init_from_env, lost_processes, shut_down, sync_batch_norm
from ops.common.errors import InputError
from ops.data.loader import LoaderError, make_loader
from ops.training.epoch import EpochProgress, Hooks, train_one_epoch
from ops.training.log import read_epochs
from ops.training.schedule import Schedule
from ops.training.settings import Settings
from ops.training.step import Networks, Updater
from ops.training.validation import validate
from tests import two_hosts
from tests.helpers import PROJECT, make_kinetics_tree, torchrun_worker
from tests.training.test_log import read_events

NUM_CLASSES, BATCH, LENGTH = 5, 8, 21
OPTIONS = ModelOptions("mine", "RGB", "resnet18", num_segments=1, num_class=NUM_CLASSES)
SETTINGS = Settings(OPTIONS, Schedule(0.05), weight_decay=1e-3, clip_norm=1.0)


class Clips:
    """Random clips; those named in `bad` cannot be read."""

    def __init__(self, length=LENGTH, bad=()):
        self.length, self.bad = length, set(bad)

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        index, epoch = key
        if index in self.bad:
            raise InputError(f"list:{index + 1}: gone")
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        return torch.randint(0, 255, (3, 6, 6), dtype=torch.uint8, generator=generator), index % NUM_CLASSES


class Net(nn.Module):
    """BN in evaluation mode, as partial BN has it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(64, NUM_CLASSES)

    def train(self, mode=True):
        super().train(mode)
        self.features[1].eval()
        return self

    def forward(self, x):
        return self.head(self.features(x))


def normalize(clips):
    return clips.float() / 255


class Breaking:
    """A loader whose workers break down for their `last`-th batch."""

    def __init__(self, loader, last):
        self.loader, self.last = loader, last
        self.sampler = loader.sampler

    def __iter__(self):
        yield from itertools.islice(self.loader, self.last - 1)
        raise LoaderError("workers were killed")

    def __len__(self):
        return len(self.loader)


def train(process, *, clips=None, stop_on=None, break_at=None, **options):
    """Train two epochs; what came of it, the same in every process."""
    model = Net().train()
    networks = Networks.wrap(model, normalize, process)
    groups = [{"params": list(model.parameters()), "lr_mult": 1, "decay_mult": 1}]
    updater = Updater(torch.optim.SGD(groups, 0.1, momentum=0.9))
    loader = make_loader(clips or Clips(), batch_size=BATCH, workers=0, shuffle=True, drop_last=True, process=process)
    if break_at is not None:
        loader = Breaking(loader, break_at)
    losses, seen, complete, broken = [], [], True, None
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        progress = EpochProgress(epoch)
        try:
            complete = train_one_epoch(
                networks,
                updater,
                loader,
                progress=progress,
                num_steps=len(loader),
                settings=dataclasses.replace(SETTINGS, **options),
                process=process,
                hooks=Hooks(
                    trace=lambda step, lr, loss, norm: losses.append([loss, norm]),
                    unread=seen.append,
                    should_stop=lambda: stop_on == process.rank and len(losses) == 2,
                ),
            )
        except LoaderError as error:
            broken, complete = str(error), False
        if not complete:
            break
    unread = sorted({message for messages in process.gather(seen) for message in messages})
    return {
        "complete": complete,
        "losses": losses,
        "weights": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "meters": [progress.losses.state_dict(), progress.top1.state_dict(), progress.top5.state_dict()],
        "counts": [progress.step, progress.num_unread],
        "unread": unread,
        "broken": broken,
    }


def check(process):
    """Validate 7 videos, which do not share out equally; rank 1's BN statistics are off and must not count."""
    model = Net()
    if process.rank:
        model.features[1].running_mean += 5
    loader = make_loader(Clips(7, bad=[3]), batch_size=2, workers=0, shuffle=False, process=process)
    result = validate(
        Networks.wrap(model, normalize, process),
        loader,
        num_listed=7,
        settings=dataclasses.replace(SETTINGS, on_error="skip"),
        process=process,
        hooks=Hooks(),
    )
    numbers = [result.loss, result.top1, result.top5, result.num_videos, result.num_listed]
    return {"numbers": numbers, "confusion": result.confusion}


SCENARIOS = {
    "plain": train,
    "accumulated": lambda process: train(process, accum_steps=3),
    "unreadable": lambda process: train(process, clips=Clips(bad=[2, 3, 11]), on_error="skip"),
    "validation": check,
}


def run_job(folder: Path) -> None:
    """One process of the job: every scenario, its results in a file for each rank."""
    process = init_from_env()
    results = {name: scenario(process) for name, scenario in SCENARIOS.items()}
    results["stopped"] = train(process, stop_on=1)
    results["broken"] = train(process, break_at=2 if process.rank == 1 else None)
    results["gathered"] = [process.gather({"rank": process.rank}), process.gather_ints([process.rank, 7])]
    results["share"] = process.share(8)
    try:
        train(process, clips=Clips(bad=[2]))
    except InputError as error:
        results["raised"] = str(error)
    process.barrier()
    torch.save(results, folder / f"rank{process.rank}.pt")
    shut_down()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Results of both processes of a job of two."""
    folder = tmp_path_factory.mktemp("job")
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"TORCHELASTIC_RESTART_COUNT": "1"}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.common.test_distributed", str(folder)],
            cwd=PROJECT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (1, 0)
    ]
    assert [job.wait(timeout=600) for job in jobs] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_equal_one(two, name):
    expected = SCENARIOS[name](Process())
    for ours in two:
        assert ours[name].get("unread") == expected.get("unread")
        for key in expected.keys() - {"unread"}:
            torch.testing.assert_close(ours[name][key], expected[key], rtol=1e-5, atol=1e-5)


def test_scenarios_are_what_they_claim(two):
    assert two[0]["accumulated"]["counts"] == [2, 0]
    assert two[0]["unreadable"]["unread"] == ["list:12: gone", "list:3: gone", "list:4: gone"]
    assert two[0]["validation"]["numbers"][3:] == [6, 7]


def test_a_signal_to_one_process_stops_all_after_the_same_step(two):
    assert [ours["stopped"]["complete"] for ours in two] == [False, False]
    assert two[0]["stopped"]["counts"] == two[1]["stopped"]["counts"]
    assert torch.equal(two[0]["stopped"]["weights"], two[1]["stopped"]["weights"])


def test_an_unreadable_sample_ends_every_process(two):
    messages = sorted(ours["raised"] for ours in two)
    assert messages == ["another process met a sample that cannot be read", "list:3: gone"]


def test_a_broken_loader_stops_every_process_after_the_same_step(two):
    first, second = (ours["broken"] for ours in two)
    assert first["broken"] == "the loader workers of another process broke down"
    assert second["broken"] == "workers were killed"
    assert first["counts"] == second["counts"] == [1, 0]
    assert torch.equal(first["weights"], second["weights"])
    assert not torch.equal(first["weights"], two[0]["plain"]["weights"])


def test_processes_agree(two):
    for ours in two:
        assert ours["gathered"] == [[{"rank": 0}, {"rank": 1}], [[0, 7], [1, 7]]]
        assert ours["share"] == 4


def test_a_batch_that_cannot_be_shared_names_ones_that_can():
    with pytest.raises(InputError, match=r"--batch-size 10 .* by 4 processes; 8 or 12 can"):
        Process(world_size=4).share(10)
    with pytest.raises(InputError, match="processes; 4 can"):
        Process(world_size=4).share(3)


def test_workers_are_shared_within_a_machine():
    assert [Process(local_world_size=n).share_workers(8) for n in (1, 3, 8, 16)] == [8, 3, 1, 1]
    assert Process(local_world_size=2).share_workers(0) == 0


def test_sync_bn_on_cpus_is_refused_with_the_reason():
    with pytest.raises(InputError, match="needs CUDA devices"):
        sync_batch_norm(nn.BatchNorm2d(3), Process(world_size=2))
    assert isinstance(sync_batch_norm(nn.BatchNorm2d(3), Process()), nn.SyncBatchNorm | nn.BatchNorm2d)


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert init_from_env([1]).device == torch.device("cuda", 1)
    assert init_from_env().devices == (0, 1)
    with pytest.raises(InputError, match="--gpus 2: no such CUDA device; this machine has 0, 1"):
        init_from_env([2])
    with pytest.raises(InputError, match="named twice"):
        init_from_env([0, 0])
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes here for 1 CUDA"):
        init_from_env([1])


def test_the_loss_of_another_process_is_one_line():
    gone = "[gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]:19124: Connection reset by peer. GLHF!"
    with pytest.raises(InputError, match="process 1 lost another process"), lost_processes(Process(1, 2)):
        raise RuntimeError(gone)
    with pytest.raises(RuntimeError, match="shapes"), lost_processes(Process(1, 2)):
        raise RuntimeError("shapes do not match")


# --- torchrun with the real command -----------------------------------------------------------------------------------

OPTIONS = (
    "--arch mobilenetv2 --shift --pretrain none --input_size 32 --num_segments 2 --num_class 2 -b 4 --lr 0.001 "
    "--dropout 0.5 --eval-freq 1 -p 1 --save_every 1 --epochs 3 --store_name run -j 0 --resume auto"
)


def torchrun(root: Path, folder: Path) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max_restarts=3"]
    folders = ["--root_log", str(folder / "log"), "--root_model", str(folder / "model")]
    command = ["kinetics", "RGB", "--root_dataset", str(root), *shlex.split(OPTIONS), *folders]
    return subprocess.Popen(
        [*launcher, str(PROJECT / "main.py"), *command],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def job_root(tmp_path_factory):
    return make_kinetics_tree(tmp_path_factory.mktemp("data"), num_videos=9, num_frames=6, size=(48, 40))


@pytest.fixture(scope="module")
def whole_job(job_root, tmp_path_factory):
    """An undisturbed job of two processes."""
    folder = tmp_path_factory.mktemp("whole")
    job = torchrun(job_root, folder)
    output, _ = job.communicate(timeout=600)
    assert job.returncode == 0, output
    assert output.count("TSN configuration") == 1  # only rank 0 speaks
    return folder


def assert_same_job(folder: Path, whole: Path) -> None:
    runs = [path / "log" / "run" for path in (folder, whole)]
    rows = [[{**row, "seconds": 0} for row in read_epochs(run / "epochs.csv")] for run in runs]
    assert rows[0] == rows[1] and [row["epoch"] for row in rows[0]] == [0, 1, 2]
    for name in ("", "steps"):
        assert read_events(runs[0] / name) == read_events(runs[1] / name)
    assert "9 of 9 videos" in (runs[0] / "log.csv").read_text()
    files = [path / "model" / "run" / "ckpt.pth.tar" for path in (folder, whole)]
    ours, expected = (torch.load(path, weights_only=True)["state_dict"] for path in files)
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    assert all(key.startswith("module.") and not key.startswith("module.module.") for key in ours)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the worker through /proc")
def test_a_killed_worker_changes_nothing(job_root, whole_job, tmp_path):
    job = torchrun(job_root, tmp_path)
    log = tmp_path / "log" / "run" / "log.csv"
    end = time.monotonic() + 400
    while not (log.exists() and "Epoch: [1][0/2]" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(torchrun_worker(job.pid, 1), signal.SIGKILL)
    output, _ = job.communicate(timeout=600)
    assert job.returncode == 0, output
    assert output.count("TSN configuration") == 2
    assert "main.py: error: process 0 lost another process of the job" in output and "Traceback" not in output
    assert_same_job(tmp_path, whole_job)


def test_two_hosts_and_a_killed_worker_change_nothing(job_root, whole_job, tmp_path):
    reason = two_hosts.why_not()
    if reason:
        pytest.skip(reason)
    command = ["kinetics", "RGB", "--root_dataset", str(job_root), *shlex.split(OPTIONS)]
    story = two_hosts.train(command, tmp_path, kill_at="Epoch: [1][0/2]", limit_s=900)
    assert story[0].startswith("SIGKILL") and story[1].startswith("Resumed from ")
    assert_same_job(tmp_path, whole_job)


if __name__ == "__main__":
    run_job(Path(sys.argv[1]))
