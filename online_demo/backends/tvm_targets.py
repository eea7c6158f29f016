"""What online_demo/compile.py can compile for."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from ops.common.errors import InputError

AARCH64 = "aarch64-linux-gnu"
CROSS_COMPILER = f"{AARCH64}-g++"


@dataclass(frozen=True)
class TargetSpec:
    """A machine. cpu: LLVM's name of it, None for this one's. cuda_arch: its GPU is to compute, sm_XX."""

    name: str
    text: str
    cpu: str | None = None
    num_cores: int = 4
    cuda_arch: str | None = None
    shared_memory_bytes: int = 49152
    registers_a_block: int = 65536

    @property
    def is_host(self) -> bool:
        return self.cpu is None


_SPECS = (
    TargetSpec("host", "this machine's CPU"),
    TargetSpec("raspberrypi3", "Raspberry Pi 3, 64-bit system", "cortex-a53"),
    TargetSpec("raspberrypi4", "Raspberry Pi 4", "cortex-a72"),
    TargetSpec("raspberrypi5", "Raspberry Pi 5", "cortex-a76"),
    TargetSpec("jetson-nano-cpu", "Jetson Nano, CPU", "cortex-a57"),
    TargetSpec("jetson-xavier-cpu", "Jetson Xavier, CPU (Carmel)", "carmel", num_cores=6),
    TargetSpec("jetson-orin-cpu", "Jetson Orin, CPU", "cortex-a78ae", num_cores=6),
    TargetSpec("jetson-nano", "Jetson Nano, GPU", "cortex-a57", 4, "sm_53", registers_a_block=32768),
    TargetSpec("jetson-xavier", "Jetson Xavier, GPU", "carmel", 6, "sm_72"),
    TargetSpec("jetson-orin", "Jetson Orin, GPU", "cortex-a78ae", 6, "sm_87"),
)
TARGETS = {spec.name: spec for spec in _SPECS}


def find_target(name: str) -> TargetSpec:
    """A row of the table, or `aarch64:CPU` for any other 64-bit ARM board, such as aarch64:cortex-a55."""
    if name in TARGETS:
        return TARGETS[name]
    arch, _, cpu = name.partition(":")
    if arch == "aarch64" and cpu and all(char.isalnum() or char == "-" for char in cpu):
        return TargetSpec(name, f"64-bit ARM board, {cpu}", cpu)
    raise InputError(f"unknown target {name!r}: choose one of {', '.join(TARGETS)}, or aarch64:CPU in LLVM's names")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_description(spec: TargetSpec, host_cpu: str) -> dict[str, object]:
    """The CPU as TVM's target takes it: a dict; strings with flags are refused since 0.2x."""
    if spec.is_host:
        return {"kind": "llvm", "mcpu": host_cpu, "num-cores": num_cores()}
    return {"kind": "llvm", "mtriple": AARCH64, "mcpu": spec.cpu, "num-cores": spec.num_cores}


def cuda_description(spec: TargetSpec) -> dict[str, object]:
    """The GPU as TVM's target takes it."""
    return {
        "kind": "cuda",
        "arch": spec.cuda_arch,
        "max_num_threads": 1024,
        "thread_warp_size": 32,
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": spec.shared_memory_bytes,
        "registers_per_block": spec.registers_a_block,
    }


def tuning_name(spec: TargetSpec) -> str:
    """The name that a target's tuning record is kept under: one a CPU family, whose loops want the same shapes."""
    return platform.machine().lower() if spec.is_host else spec.name
