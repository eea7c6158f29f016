"""Batches in memory that is used again: values stay while a batch is held, pieces come back when it is gone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ops.data import loader, shared_memory
from ops.data.loader import PREFETCH, make_loader
from ops.data.shared_memory import BatchMemory


class Numbers:
    """Clip i of epoch e holds the number 32 * e + i in every byte; batch by batch with another number of crops."""

    def __init__(self, length=24, many=2):
        self.length = length
        self.many = many

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        index, epoch = key
        crops = 1 + index // 2 % self.many
        return torch.full((crops * 4, 5, 6, 3), 32 * epoch + index, dtype=torch.uint8).movedim(-1, -3), index


def number_loader(**options):
    return make_loader(Numbers(), **{"batch_size": 2, "workers": 1, "shuffle": False, **options})


def assert_numbers(batch, epoch):
    for clip, index in zip(batch.clips, batch.indices.tolist(), strict=True):
        assert clip.stride(-3) == 1
        assert clip.unique().tolist() == [32 * epoch + index]


def used_pieces(numbers):
    numbers.collate_fn.memory.take_back()
    return int(numbers.collate_fn.memory._taken.sum())


def assert_epochs(numbers, epochs):
    """Whole epochs hold what they should, and leave no piece in use."""
    for epoch in epochs:
        numbers.sampler.set_epoch(epoch)
        for batch in numbers:
            assert_numbers(batch, epoch)
    del batch
    assert used_pieces(numbers) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_kept_batches_keep_their_values(workers):
    numbers = number_loader(workers=workers)
    kept = []
    for epoch in range(3):
        numbers.sampler.set_epoch(epoch)
        kept += [(batch, epoch) for batch in numbers]
        for batch, made_in in kept:
            assert_numbers(batch, made_in)
    assert used_pieces(numbers) == workers * (PREFETCH + 2)  # all, and the other batches have memory of their own
    del batch
    kept.clear()
    assert used_pieces(numbers) == 0


@pytest.mark.parametrize("part", [lambda clips: clips[1:, :2, 0], lambda clips: clips.numpy()[1:]])
def test_any_hold_on_a_batch_keeps_it(part):
    batches = iter(number_loader())
    held = part(next(batches).clips)
    before = np.asarray(held).copy()
    for batch in batches:
        assert np.array_equal(held, before)
        assert batch.clips.max() > before.max()


def test_memory_is_used_again(monkeypatch):
    """A worker whose batches are dropped needs no memory but its pieces."""
    monkeypatch.setattr(loader, "default_collate", None)  # what would allocate some, in the worker too
    numbers = number_loader()
    assert_epochs(numbers, range(4))


def test_an_abandoned_epoch_gives_its_pieces_back():
    numbers = number_loader(workers=2)
    for epoch in range(6):
        numbers.sampler.set_epoch(epoch)
        for batch in numbers:
            assert_numbers(batch, epoch)
            if batch.indices[0] >= 4:
                break
    del batch
    assert_epochs(numbers, [7])


def test_pieces_are_taken_grown_and_given_back(monkeypatch):
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: SimpleNamespace(id=1))
    memory = BatchMemory(workers=2, pieces=2)

    def send(loan):
        rebuild, args = loan.__reduce__()
        return rebuild(*args[:2], args[2].clone())  # another storage, as in another process

    loans = [memory.take(10), memory.take(20)]
    assert [loan.piece for loan in loans] == [(1, 0), (1, 1)]
    assert [loan.tensor.numel() for loan in loans] == [10, 20]
    assert all(loan.tensor.is_shared() for loan in loans)
    assert memory.take(1) is None
    batches = [send(loan) for loan in loans]
    memory.take_back()
    assert memory.take(1) is None
    del batches[0]
    memory.take_back()
    larger = memory.take(30)
    assert (larger.piece, larger.tensor.numel()) == ((1, 0), 30)
    assert memory.take(1) is None
    del batches[0]
    memory.take_back()
    smaller = memory.take(15)
    assert smaller.piece == (1, 1)
    assert smaller.tensor.data_ptr() == loans[1].tensor.data_ptr()


def test_no_piece_where_shared_memory_is_short(monkeypatch):
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: SimpleNamespace(id=0))
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: (409_600, 98_304, 311_296))
    memory = BatchMemory(workers=1, pieces=2)
    assert memory.take(4096 + 1) is None
    assert memory.take(4096).tensor.numel() == 4096


@pytest.mark.parametrize("workers", [0, 1])
def test_other_types_keep_their_values(workers):
    values = torch.tensor([-0.5, 0, 1, 300]).view(4, 1, 1, 1)
    numbers = type("Typed", (Numbers,), {"__getitem__": lambda self, key: (values, key[0])})()
    batch = next(iter(make_loader(numbers, batch_size=2, workers=workers, shuffle=False)))
    assert batch.clips.dtype == torch.float32
    assert torch.equal(batch.clips, torch.stack([values, values]))


def test_the_other_way_of_sharing():
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")  # of macOS
    try:
        assert_epochs(number_loader(), range(3))
    finally:
        torch.multiprocessing.set_sharing_strategy(before)


def test_workers_that_are_not_forked():
    numbers = number_loader()
    numbers.multiprocessing_context = "spawn"
    assert_epochs(numbers, range(2))
