"""Batches of clips: order, sharing out over processes, workers, and what happens to samples that cannot be read.

Which samples make which batch, and every random choice inside a sample, depend on (seed, epoch, index) only: not on the
number of workers, nor on the number of processes, nor on where an interrupted epoch continues.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data._utils import signal_handling

from ops.common.cpu import keep_freed_memory
from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.data.sampling import seeded_rng
from ops.data.shared_memory import BatchMemory, Loan

PREFETCH = 2  # batches that each worker has under way


class Batch(NamedTuple):
    """One batch. Samples that could not be read are not in it but in `failures`; all of them may have failed."""

    clips: Tensor  # uint8 (N, crops*clips*T*L, C, H, W), memory (N, ..., H, W, C); (0,) where every sample failed
    labels: Tensor  # int64 (N,)
    indices: Tensor  # int64 (N,), positions in the data set
    failures: list[str]  # a line each: list file, its line, frame or video file, reason


class ClipDataset(Protocol):
    """What the loader needs: `dataset[(index, epoch)]` -> (uint8 clip, label), InputError for a bad sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]: ...


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (index, epoch) for the samples of one process, in the order of its batches.

    Shuffled (training): batch b of the job is the same set of samples whatever `world_size` is; process r takes its
    contiguous 1/world_size of each. The last, short batch is dropped (`drop_last`) or filled up from the epoch's
    first samples until every process has as many. Not shuffled (evaluation): process r takes samples
    r, r + world_size, ...: each once, so that shares may differ by one.

    Args:
        length: samples in the data set.
        batch_size: of the whole job, over all processes; shuffled, a multiple of `world_size`.
        drop_last: drop the last batch if it is short. Never leaves an epoch empty: a data set smaller than one batch
            is one short batch.
    """

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batch_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        batch_size = world_size if batch_size is None else batch_size
        if length < 1:
            raise InputError("the data set is empty: there is nothing to load")
        if batch_size < 1:
            raise InputError(f"the batch size must be 1 or more, got {batch_size}")
        self.length = length
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.batch_size = batch_size
        self.drop_last = drop_last and length >= batch_size
        self.epoch = 0
        self.start_sample = 0

    @property
    def local_batch_size(self) -> int:
        """Samples of one full batch that this process loads."""
        return -(-self.batch_size // self.world_size)

    def set_epoch(self, epoch: int, start_sample: int = 0) -> None:
        """Choose the epoch, and where in it to begin: `start_sample` samples of the whole job are already done.

        `start_sample` must be a multiple of the batch size (the last, short batch counts as a whole one). `len()` then
        counts what is left.
        """
        if start_sample % self.batch_size or not 0 <= start_sample < self.length + self.batch_size:
            raise InputError(
                f"cannot continue at sample {start_sample}: it must be a multiple of the batch size {self.batch_size} "
                f"within the {self.length} samples of an epoch"
            )
        self.epoch = epoch
        self.start_sample = start_sample

    def _share(self) -> np.ndarray:
        """Data set indices of this process in this epoch, from `start_sample` on."""
        if not self.shuffle:
            return np.arange(self.start_sample + self.rank, self.length, self.world_size)
        order = seeded_rng(self.seed, self.epoch).permutation(self.length)
        num_full = self.length // self.batch_size * self.batch_size
        # (batches, processes, samples of one process)
        full = order[:num_full].reshape(-1, self.world_size, self.batch_size // self.world_size)
        share = full[self.start_sample // self.batch_size :, self.rank].reshape(-1)
        rest = order[num_full:]
        if self.drop_last or not len(rest) or self.start_sample > num_full:
            return share
        missing = -len(rest) % self.world_size
        rest = np.concatenate([rest, np.resize(order, missing)]).reshape(self.world_size, -1)
        return np.concatenate([share, rest[self.rank]])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in self._share().tolist():
            yield index, self.epoch

    def __len__(self) -> int:
        return len(self._share())


class _Guarded(Dataset):
    """Turns the InputError of one sample into a message, so that one bad video does not end a worker."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor | None, Any]:
        try:
            clip, label = self.dataset[key]
        except InputError as error:
            return key[0], None, " ".join(str(error).split())
        return key[0], clip, label


class _Collate:
    """Samples -> `Batch`, no byte of a clip rearranged, in a worker straight into memory shared with the main process.

    memory: of the workers; None loads in the main process.
    """

    def __init__(self, memory: BatchMemory | None) -> None:
        self.memory = memory

    def __call__(self, samples: list[tuple[int, Tensor | None, Any]]) -> Batch:
        good = [sample for sample in samples if sample[1] is not None]
        labels = torch.tensor([label for _, _, label in good], dtype=torch.int64)
        indices = torch.tensor([index for index, _, _ in good], dtype=torch.int64)
        failures = [message for _, clip, message in samples if clip is None]
        # Last, as a piece that was taken for a batch must reach the main process. A loan is a tensor from there on.
        clips = self._stack([clip for _, clip, _ in good]) if good else torch.empty(0, dtype=torch.uint8)
        return Batch(clips, labels, indices, failures)

    def _stack(self, clips: list[Tensor]) -> Tensor | Loan:
        pixels = [clip.movedim(-3, -1) for clip in clips]  # channels-last memory as (..., H, W, C)
        shape = pixels[0].shape
        if any(not x.is_contiguous() or x.shape != shape or x.dtype != torch.uint8 for x in pixels):
            return default_collate(clips)
        loan = self.memory.take(len(clips) * shape.numel()) if self.memory is not None else None
        if loan is None:
            return default_collate(pixels).movedim(-1, -3)
        loan.tensor = torch.stack(pixels, out=loan.tensor.view(len(clips), *shape)).movedim(-1, -3)
        return loan


class LoaderError(InputError):
    """The workers cannot continue, though the data are good. The network is as it was after the last whole step."""


_LESS = "fewer workers (-j) or a smaller batch need less"
_SHARED_FULL = f"the memory that workers share, /dev/shm, is full: {_LESS}, -j 0 needs none, docker run has --shm-size"
_REASONS = {  # what torch or the system says -> what that means here
    r"unable to (allocate shared memory|write to file|resize file)|No space left on device": _SHARED_FULL,
    r"Too many open files|items of ancdata": f"too many open files: {_LESS}, and ulimit -n allows more",
    r"an't allocate memory|annot allocate memory|MemoryError": f"out of memory: {_LESS}",
    r"Resource temporarily unavailable|an't start new thread": "no more processes are allowed: fewer workers (-j)",
}


@contextlib.contextmanager
def explain_errors(workers: Sequence[BaseProcess]) -> Iterator[None]:
    """Turn what a machine without memory or a dead worker raises into LoaderError; anything else passes as it is."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError, EOFError) as error:
        if isinstance(error, (ConnectionError, EOFError)):  # so ends a connection to a worker that is just dying
            for worker in workers:
                worker.join(1 / len(workers))
        text = f"{type(error).__name__}: {error}"
        meanings = (f"cannot load: {meaning}" for pattern, meaning in _REASONS.items() if re.search(pattern, text))
        reason = _describe_death(workers) or next(meanings, None)
        if reason is None:
            raise
        raise LoaderError(reason) from error


def _describe_death(workers: Sequence[BaseProcess]) -> str | None:
    """What to say of the first worker that ended by itself, if any did."""
    dead = next((worker for worker in workers if worker.exitcode is not None), None)
    if dead is None:
        return None
    killer = -dead.exitcode  # negative exit codes are signals
    if killer == getattr(signal, "SIGBUS", None):
        return f"loader worker {dead.pid} was killed: {_SHARED_FULL}"
    how = f"was killed ({signal.strsignal(killer)})" if killer > 0 else f"ended with status {dead.exitcode}"
    return f"loader worker {dead.pid} {how}; if memory was short (see dmesg), {_LESS}"


class _Loader(DataLoader):
    """A DataLoader that takes its workers' memory back, and whose loop ends with a LoaderError where they fail."""

    def __iter__(self) -> Iterator[Batch]:
        # torch would raise a worker's death from a signal handler, even with half of the weights updated. Without it
        # the wait for the dead worker's batch finds out, within five seconds.
        signal_handling._SIGCHLD_handler_set = True
        with explain_errors([]):
            batches = super().__iter__()
        while True:
            with explain_errors(getattr(batches, "_workers", [])):
                if self.collate_fn.memory is not None:
                    self.collate_fn.memory.take_back()
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
            del batch  # so that its memory is free once the caller lets go of it


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)  # a worker each core is the parallelism: more threads only fight
    keep_freed_memory()
    # Ctrl-C and the SIGTERM of torchrun or Slurm reach the whole group; the main process still finishes its step.
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def make_loader(
    dataset: ClipDataset,
    *,
    batch_size: int,
    workers: int,
    shuffle: bool,
    seed: int = 0,
    process: Process | None = None,
    drop_last: bool = False,
) -> DataLoader:
    """Loader of `Batch`es; `loader.sampler.set_epoch(epoch)` before each epoch. Iteration may raise `LoaderError`.

    A batch's memory is used again once nothing in this process holds it: clone what goes to another process. With CUDA,
    batches are page-locked for quick copies to the GPU.

    Args:
        batch_size: of the whole job. Each process gets batches of batch_size / world_size (rounded up when not
            shuffled).
        workers: of this process; 0 loads in the process itself.
        shuffle: True for training, False for evaluation (see `EpochSampler` for what each does with several processes).
        process: which share to load (default: all).
        drop_last: drop the last batch if it is short, unless it is the only one.
    """
    process = process or Process()
    if shuffle:
        process.share(batch_size)  # refuses a batch that cannot be shared equally
    if workers == 0:
        keep_freed_memory()  # the main process is the worker
    sampler = EpochSampler(
        len(dataset),
        shuffle=shuffle,
        seed=seed,
        rank=process.rank,
        world_size=process.world_size,
        batch_size=batch_size,
        drop_last=drop_last,
    )
    return _Loader(
        _Guarded(dataset),
        batch_size=sampler.local_batch_size,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_Collate(BatchMemory(workers, pieces=PREFETCH + 2) if workers else None),
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Its own generator: loading must not draw from the random numbers that dropout uses.
        generator=torch.Generator().manual_seed(seed),
    )
