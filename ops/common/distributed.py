"""The processes of a job: which one this is, on which device it computes, and how they agree."""

from __future__ import annotations

import contextlib
import datetime
import gc
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ops.common.cpu import keep_freed_memory
from ops.common.errors import InputError

logger = logging.getLogger(__name__)

_TIMEOUT = datetime.timedelta(minutes=60)  # a rank may wait for another's long validation
_LOST = re.compile(r"(?i)connection (closed|reset)|broken pipe|socket closed|NCCL.*(remote error|connection)")


@dataclass(frozen=True)
class Process:
    """This process among those of the job; on its own, rank 0 of 1.

    Attributes:
        device: where this process computes.
        devices: CUDA devices to share a batch over inside this process (nn.DataParallel), if there are several.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    devices: tuple[int, ...] = ()

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files."""
        return self.rank == 0

    def __str__(self) -> str:
        if self.device.type != "cuda":
            return f"{self.world_size} x CPU, {torch.get_num_threads()} threads"
        return f"{max(1, len(self.devices)) * self.world_size} x {torch.cuda.get_device_name(self.device)}"

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place, without waiting for a CUDA device; returns the tensor."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Give every process the plain value of each, in the order of ranks. Goes over the CPU."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def gather_ints(self, values: Sequence[int]) -> list[list[int]]:
        """Like `gather`, for a few whole numbers in every step: no pickling, and no wait for the device."""
        if self.world_size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.int64)
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(everyone, mine)
        return [row.tolist() for row in everyone]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every process rank 0's BN statistics, which are the ones that a checkpoint holds."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            self.gather_ints([0])

    def share(self, batch_size: int) -> int:
        """This process's part of a batch of the whole job.

        Raises:
            InputError: the processes cannot share the batch equally.
        """
        if batch_size % self.world_size:
            below = batch_size - batch_size % self.world_size
            choices = [str(size) for size in (below, below + self.world_size) if size]
            raise InputError(
                f"--batch-size {batch_size} is of the whole job and cannot be shared equally by {self.world_size} "
                f"processes; {' or '.join(choices)} can"
            )
        return batch_size // self.world_size

    def share_workers(self, workers: int) -> int:
        """This process's part of a machine's loader workers, rounded up."""
        return -(-workers // self.local_world_size)


def init_from_env(gpus: Sequence[int] | None = None) -> Process:
    """Join the job that torchrun describes in the environment; without torchrun, be the only process.

    On a CPU the process keeps the memory that it frees (`keep_freed_memory`).

    Args:
        gpus: CUDA devices to use, by default all. Under torchrun local rank r takes the r-th of them.

    Raises:
        InputError: a device that this machine does not have, or more processes on it than devices.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = _choose_devices(gpus, visible)
    if not devices:
        keep_freed_memory()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" not in os.environ:
        device = torch.device("cuda", devices[0]) if devices else torch.device("cpu")
        if devices:
            torch.cuda.set_device(device)
        return Process(device=device, devices=devices)

    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if devices and local_world_size > len(devices):
        raise InputError(
            f"torchrun started {local_world_size} processes here for {len(devices)} CUDA device(s) "
            f"({', '.join(map(str, devices))}); use --nproc_per_node={len(devices)}"
        )
    device = torch.device("cuda", devices[local_rank]) if devices else torch.device("cpu")
    if devices:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # DDP imports it, and what it imports keeps the process group of that moment, threads and all, beyond its end:
        # a thread that then wants Python's lock while the program ends aborts it.
        importlib.import_module("torch.distributed.nn")
        # Gradients travel by NCCL; counts and decisions by gloo, so that the CPU never waits for the GPU to agree.
        backend = "cpu:gloo,cuda:nccl" if devices else "gloo"
        store = _store_of_this_start()
        place = {"store": store, "rank": rank, "world_size": world_size} if store is not None else {}
        dist.init_process_group(backend, timeout=_TIMEOUT, **place)
    return Process(rank, world_size, local_rank, local_world_size, device)


def check_amp(amp: str, process: Process, command: str) -> None:
    """Refuse mixed precision that nn.DataParallel would get wrong.

    Raises:
        InputError: bf16 on several devices of one process.
    """
    if len(process.devices) > 1 and amp == "bf16":
        raise InputError(  # nn.DataParallel's threads know of fp16 only, and would compute in that
            f"--amp bf16 on {len(process.devices)} GPUs needs a process for each: "
            f"torchrun --nproc_per_node={len(process.devices)} {command} ... (or one of them: --gpus 0)"
        )


@contextlib.contextmanager
def lost_processes(process: Process) -> Iterator[None]:
    """Report in one line that another process of the job is gone; its own last line says why.

    Raises:
        InputError: in place of what gloo or NCCL raise then.
    """
    try:
        yield
    except RuntimeError as error:
        if process.world_size == 1 or not _LOST.search(str(error)):
            raise
        raise InputError(
            f"process {process.rank} lost another process of the job, which ended or was killed; torchrun "
            "--max_restarts starts them again, and --resume auto continues from the last checkpoint"
        ) from error


def shut_down() -> None:
    """Leave the job, if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        if sys.exc_info()[0] is None:  # else an error is on its way: torchrun ends the others of a broken job
            gc.collect()  # networks in DDP hold the group, too; the last to let go of it waits for its threads to end
        dist.destroy_process_group()


def sync_batch_norm(model: nn.Module, process: Process) -> nn.Module:
    """Make every BN use the statistics of all processes (torch's own SyncBatchNorm).

    Raises:
        InputError: there are several processes on CPUs, which SyncBatchNorm does not support.
    """
    if process.world_size > 1 and process.device.type != "cuda":
        raise InputError("--sync_bn over several processes needs CUDA devices (a limit of torch's SyncBatchNorm)")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def parallel(model: nn.Module, process: Process) -> nn.Module:
    """Wrap a network, in training mode and on its device, for training on all devices of the job.

    DDP leaves out the parameters that are frozen when it wraps, and training mode is what freezes them (partial BN).
    """
    if process.world_size > 1:
        ids = [process.device.index] if process.device.type == "cuda" else None
        # Channels-last kernels of one channel or one pixel: other strides, the same bytes.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    if len(process.devices) > 1:
        return nn.DataParallel(model, device_ids=list(process.devices))
    return model


def _choose_devices(gpus: Sequence[int] | None, visible: int) -> tuple[int, ...]:
    if gpus is None:
        return tuple(range(visible))
    if len(set(gpus)) != len(gpus):
        raise InputError(f"--gpus {' '.join(map(str, gpus))}: a device is named twice")
    for gpu in gpus:
        if not 0 <= gpu < visible:
            known = ", ".join(map(str, range(visible))) or "none: leave --gpus out to use the CPU"
            raise InputError(f"--gpus {gpu}: no such CUDA device; this machine has {known}")
    return tuple(gpus)


def _store_of_this_start() -> dist.Store | None:
    """A part of the store of torchrun's agent that no process of an earlier start has written to; None: torch's own.

    The agent outlives restarts, and its store still has the addresses of dead processes. The restarts of one machine
    have numbers; those of several machines differ, so that there the agents themselves must start anew.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        if os.environ["RANK"] == "0" and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
            logger.warning(
                "Warning: the machines may wait for each other without end after a restart; set "
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on each of them (see scripts/dist_multi_machine.sh)"
            )
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, timeout=_TIMEOUT)
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
