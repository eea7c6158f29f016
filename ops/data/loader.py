"""Batches of clips: order, sharing out over processes, workers, and what happens to samples that cannot be read.

Which samples make which batch, and every random choice inside a sample, depend on (seed, epoch, index) only: not on the
number of workers, nor on the number of processes, nor on where an interrupted epoch goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ops.common.errors import InputError
from ops.data.loader_faults import allow_open_files, defer_deaths, explained, raise_if_a_worker_died
from ops.data.loader_memory import BatchMemory, Loan, keep_freed_memory
from ops.data.sampling import seeded_rng

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
        batch_size: of the whole job, over all processes; shuffled, it must be a multiple of `world_size`.
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
        if not 0 <= rank < world_size:
            raise InputError(f"rank must be 0 to {world_size - 1}, got {rank}")
        if shuffle and batch_size % world_size:
            raise InputError(
                f"batch size {batch_size} (of the whole job) does not share out over {world_size} processes: "
                f"{max(1, batch_size // world_size) * world_size} would"
            )
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
                f"cannot go on at sample {start_sample}: it must be a multiple of the batch size {self.batch_size} "
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

    memory: BatchMemory | None = None

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


class _Loader(DataLoader):
    """A DataLoader whose workers' misfortunes end the loop over it with a LoaderError, between two batches."""

    _memory: BatchMemory | None = None

    def _get_iterator(self) -> Any:
        """Start the workers (torch's own hook for it), with memory of their own."""
        if self.num_workers:
            self._memory = self.collate_fn.memory = BatchMemory(self.num_workers, pieces=PREFETCH + 2)
        return super()._get_iterator()

    def __iter__(self) -> Iterator[Batch]:
        with explained():
            batches = super().__iter__()
        if self.num_workers:
            defer_deaths()
        while True:
            with explained():
                raise_if_a_worker_died()
                if self._memory is not None:
                    self._memory.take_back()
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
            del batch  # so that its memory is free once the caller lets go of it


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)  # a worker each core is the parallelism: more threads only fight
    keep_freed_memory()
    # Ctrl-C reaches the whole process group; the main process finishes its step and needs its batches until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So may SIGTERM (torchrun, Slurm). The main process's own, at the end, is the one to obey.
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_of, args=(os.getppid(),), daemon=True).start()


def _exit_on_sigterm_of(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def make_loader(
    dataset: ClipDataset,
    *,
    batch_size: int,
    workers: int,
    shuffle: bool,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    pin_memory: bool = True,
) -> DataLoader:
    """Loader of `Batch`es; `loader.sampler.set_epoch(epoch)` before each epoch. Iteration may raise `LoaderError`.

    A batch's memory is used again once nothing in this process holds it: clone what goes to another process.

    Args:
        batch_size: of the whole job. Each process gets batches of batch_size / world_size (rounded up when not
            shuffled).
        shuffle: True for training, False for evaluation (see `EpochSampler` for what each does with several processes).
        drop_last: drop the last batch if it is short, unless it is the only one.
        pin_memory: page-locked batches for quick copies to a GPU; without CUDA nothing is pinned.
    """
    if workers == 0:
        keep_freed_memory()  # the main process is the worker
    else:
        allow_open_files(workers)
    sampler = EpochSampler(
        len(dataset),
        shuffle=shuffle,
        seed=seed,
        rank=rank,
        world_size=world_size,
        batch_size=batch_size,
        drop_last=drop_last,
    )
    return _Loader(
        _Guarded(dataset),
        batch_size=sampler.local_batch_size,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_Collate(),
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        pin_memory=pin_memory and torch.cuda.is_available(),
        # Its own generator: loading must not draw from the random numbers that dropout uses.
        generator=torch.Generator().manual_seed(seed),
    )
