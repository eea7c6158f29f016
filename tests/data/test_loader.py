"""Batches: the same ones whatever the workers, the processes, and the place where an epoch continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.data.loader import EpochSampler, LoaderError, explain_errors, make_loader
from ops.dataset import TSNDataSet
from ops.transforms import ClipTransform
from tests.helpers import PROJECT, make_frame_folder, make_list

NUM_VIDEOS = 7


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    lines = []
    for video in range(NUM_VIDEOS):
        make_frame_folder(root / f"v{video}", 9, size=(16, 12), seed=video)
        lines.append((f"v{video}", 9, video))
    make_list(root / "l.txt", lines)
    return root


def crop_at_random(frames, rng):
    """A transform that draws, so that a wrong seed shows."""
    x = rng.randint(5)
    return torch.stack([f.permute(1, 2, 0) for f in frames]).permute(0, 3, 1, 2)[..., x : x + 8]


def train_set(tree, **options):
    return TSNDataSet(tree, tree / "l.txt", 3, transform=ClipTransform([crop_at_random]), seed=11, **options)


def loader(dataset, **options):
    return make_loader(dataset, **{"batch_size": 3, "workers": 0, "shuffle": True, "seed": 11, **options})


def indices_of(sampler):
    return [index for index, _ in sampler]


# --- order -----------------------------------------------------------------------------------------------------------


def test_every_sample_once_in_a_new_order_each_epoch():
    sampler = EpochSampler(50, shuffle=True, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        pairs = list(sampler)
        assert {e for _, e in pairs} == {epoch}
        orders.append([index for index, _ in pairs])
        assert sorted(orders[-1]) == list(range(50))
        assert len(sampler) == 50
    assert orders[0] != orders[1] != orders[2]
    assert orders[1] == np.random.RandomState([3, 1]).permutation(50).tolist()
    assert indices_of(EpochSampler(5, shuffle=False)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
@pytest.mark.parametrize("length", [6, 13, 24, 100])
@pytest.mark.parametrize("drop_last", [True, False])
def test_batches_of_the_job_do_not_depend_on_the_processes(world_size, length, drop_last):
    order = np.random.RandomState([5, 2]).permutation(length).tolist()
    shares = []
    for rank in range(world_size):
        sampler = EpochSampler(
            length, shuffle=True, seed=5, rank=rank, world_size=world_size, batch_size=6, drop_last=drop_last
        )
        sampler.set_epoch(2)
        share = indices_of(sampler)
        assert len(share) == len(sampler)
        assert sampler.local_batch_size == 6 // world_size
        shares.append(share)
    assert len({len(share) for share in shares}) == 1  # every process takes as many steps
    local = 6 // world_size
    for b in range(length // 6):
        batch = [index for share in shares for index in share[b * local : (b + 1) * local]]
        assert batch == order[b * 6 : (b + 1) * 6]
    rest = [index for share in shares for index in share[length // 6 * local :]]
    if drop_last or length % 6 == 0:
        assert rest == []
    else:
        missing = -(length % 6) % world_size
        assert rest == order[length // 6 * 6 :] + order[:missing]


def test_a_set_smaller_than_the_batch_is_one_batch():
    shares = [
        indices_of(EpochSampler(3, shuffle=True, rank=r, world_size=2, batch_size=8, drop_last=True)) for r in range(2)
    ]
    assert [len(share) for share in shares] == [2, 2]
    assert set(shares[0] + shares[1]) == {0, 1, 2}
    tiny = [indices_of(EpochSampler(1, shuffle=True, rank=r, world_size=4, batch_size=4)) for r in range(4)]
    assert tiny == [[0]] * 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_evaluation_counts_each_video_once(world_size, length):
    shares = [indices_of(EpochSampler(length, shuffle=False, rank=r, world_size=world_size)) for r in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_an_epoch_continues_where_it_stopped():
    for world_size in (1, 2):
        for rank in range(world_size):
            whole = EpochSampler(23, shuffle=True, seed=1, rank=rank, world_size=world_size, batch_size=4)
            whole.set_epoch(6)
            rest = EpochSampler(23, shuffle=True, seed=1, rank=rank, world_size=world_size, batch_size=4)
            rest.set_epoch(6, start_sample=12)
            assert list(rest) == list(whole)[12 // world_size :]
            assert len(rest) == len(list(rest))
    sampler = EpochSampler(23, shuffle=True, batch_size=4)
    sampler.set_epoch(0, start_sample=24)  # five full batches and a short one are all of the epoch
    assert list(sampler) == []
    assert len(sampler) == 0
    for start in (3, 28, -4):
        with pytest.raises(InputError, match="multiple of the batch size 4 within the 23 samples"):
            sampler.set_epoch(0, start_sample=start)


def test_bad_arguments():
    with pytest.raises(InputError, match=r"batch-size 10 .* by 3 processes; 9 or 12 can"):
        make_loader(range(20), batch_size=10, workers=0, shuffle=True, process=Process(world_size=3))
    with pytest.raises(InputError, match="data set is empty"):
        EpochSampler(0, shuffle=False)
    with pytest.raises(InputError, match="batch size must be 1 or more"):
        EpochSampler(5, shuffle=False, batch_size=0)


# --- batches ---------------------------------------------------------------------------------------------------------


def batches(tree, epochs=(0, 1), start_sample=0, **options):
    made = loader(train_set(tree), **options)
    result = []
    for epoch in epochs:
        made.sampler.set_epoch(epoch, start_sample)
        result += [(b.clips.clone(), b.labels.clone(), b.indices.clone(), b.failures) for b in made]
    return result


def assert_same(a, b):
    assert len(a) == len(b)
    for (clips, labels, indices, failures), other in zip(a, b, strict=True):
        assert torch.equal(clips, other[0])
        assert torch.equal(labels, other[1])
        assert torch.equal(indices, other[2])
        assert failures == other[3] == []


def test_batches_hold_the_samples(tree):
    dataset = train_set(tree)
    made = batches(tree, epochs=(4,))
    assert [len(b[0]) for b in made] == [3, 3, 1]
    for clips, labels, indices, _ in made:
        assert clips.dtype == torch.uint8
        assert labels.dtype == indices.dtype == torch.int64
        assert clips.shape[1:] == (3, 3, 12, 8)
        assert clips.permute(0, 1, 3, 4, 2).is_contiguous()
        for clip, label, index in zip(clips, labels, indices, strict=True):
            expected, expected_label = dataset[(int(index), 4)]
            assert torch.equal(clip, expected)
            assert label == expected_label
    assert len(batches(tree, epochs=(0,), drop_last=True)) == 2


def test_workers_do_not_change_batches(tree):
    expected = batches(tree)
    assert not torch.equal(expected[0][2], expected[3][2])  # another order in epoch 1
    assert_same(batches(tree, workers=1), expected)
    assert_same(batches(tree, workers=2), expected)


def test_resumed_epoch_gives_the_remaining_batches(tree):
    assert_same(batches(tree, epochs=(1,), start_sample=3, workers=1), batches(tree, epochs=(1,))[1:])


def test_two_processes_share_the_batches_of_one(tree):
    whole = batches(tree, epochs=(2,), batch_size=4, drop_last=True)
    processes = [Process(rank=rank, world_size=2) for rank in range(2)]
    halves = [batches(tree, epochs=(2,), batch_size=4, drop_last=True, process=process) for process in processes]
    joined = [
        (*(torch.cat((a, b)) for a, b in zip(first[:3], second[:3], strict=True)), [])
        for first, second in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)


def test_loading_leaves_the_global_random_numbers_alone(tree):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for workers in (0, 1):
        list(loader(train_set(tree), workers=workers))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_samples_become_messages(tree, tmp_path, workers):
    lines = [(f"v{v}", 9, v) for v in range(4)]
    lines[1] = ("gone", 9, 1)
    lines[3] = ("gone too", 9, 3)
    list_file = make_list(tmp_path / "bad.txt", lines)
    dataset = TSNDataSet(tree, list_file, 3, transform=ClipTransform([crop_at_random]), test_mode=True)
    made = list(loader(dataset, batch_size=2, shuffle=False, workers=workers))
    assert [b.indices.tolist() for b in made] == [[0], [2]]
    assert [len(b.clips) for b in made] == [1, 1]
    assert "bad.txt:2" in made[0].failures[0]
    assert "gone/img_00002.jpg" in made[0].failures[0]
    assert "bad.txt:4" in made[1].failures[0]
    assert "Traceback" not in made[0].failures[0]

    alone = list(loader(dataset, batch_size=1, shuffle=False, workers=workers))
    assert [b.indices.tolist() for b in alone] == [[0], [], [2], []]
    assert len(alone[1].clips) == len(alone[1].labels) == 0
    assert len(alone[1].failures) == 1


def test_our_own_bugs_keep_their_traceback(tree):
    def broken(frames, rng):
        raise KeyError("a bug")

    dataset = TSNDataSet(tree, tree / "l.txt", 3, transform=ClipTransform([broken]))
    with pytest.raises(KeyError, match="a bug"):
        list(loader(dataset))


INTERRUPTED = """
import os, signal, sys
from ops.dataset import TSNDataSet
from ops.data.loader import make_loader

asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append("INT"))
signal.signal(signal.SIGTERM, lambda *_: asked.append("TERM"))
loader = make_loader(TSNDataSet(sys.argv[1], sys.argv[2], 3), batch_size=1, workers=2, shuffle=True)
seen = 0
for batch in loader:
    if not seen:
        os.killpg(0, signal.SIGINT)  # Ctrl-C reaches every process of the group, as do torchrun and Slurm
        os.killpg(0, signal.SIGTERM)
    seen += len(batch.labels)
print(seen, asked)
"""


def test_signals_to_the_group_leave_the_workers_to_the_main_process(tree):
    """Batches keep coming, and a loader that is still alive at the end does not spoil the exit."""
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tree), str(tree / "l.txt")],
        cwd=PROJECT,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", f"{NUM_VIDEOS} ['INT', 'TERM']\n")


# --- workers that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left"), "/dev/shm, is full"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "too many open files"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "no more processes"),
    ],
)
def test_what_a_machine_lacks_is_explained(error, message):
    with pytest.raises(LoaderError, match=message), explain_errors([]):
        raise error


@pytest.mark.parametrize(
    ("exitcode", "message"),
    [
        (-signal.SIGKILL, r"worker 7 was killed \(Killed\)"),
        (-signal.SIGBUS, "worker 7 .*dev/shm, is full"),
        (1, "ended with status 1"),
    ],
)
def test_a_dead_worker_is_explained(exitcode, message):
    workers = [SimpleNamespace(pid=6, exitcode=None), SimpleNamespace(pid=7, exitcode=exitcode)]
    with pytest.raises(LoaderError, match=message), explain_errors(workers):
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")


def test_our_own_mistakes_are_not_explained():
    with pytest.raises(RuntimeError, match="shapes"), explain_errors([SimpleNamespace(exitcode=None)]):
        raise RuntimeError("shapes do not match")


class Deadly:
    """Sample 4 kills its worker."""

    def __len__(self):
        return 8

    def __getitem__(self, key):
        if key[0] == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((2, 3, 4, 4), key[0], dtype=torch.uint8), 0


def test_a_killed_worker_ends_the_loop_and_nothing_else():
    made, seen = make_loader(Deadly(), batch_size=2, workers=1, shuffle=False), []
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(LoaderError, match=r"loader worker \d+ was killed \(Killed\)"):
        for batch in made:
            seen += batch.indices.tolist()
            time.sleep(0.5)  # a step, in which the worker dies
    assert seen in ([0, 1], [0, 1, 2, 3])  # the second batch may die with the worker that holds it
    assert signal.getsignal(signal.SIGCHLD) is handler
