"""The machines that online_demo/compile.py can compile for."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from ops.common.errors import InputError

AARCH64 = "aarch64-linux-gnu"
CROSS_COMPILER = f"{AARCH64}-g++"


@dataclass(frozen=True)
class TargetSpec:
    """A machine. cpu: LLVM's name, None for this machine's. gpu: TVM's name of the board, to compile for its GPU."""

    name: str
    text: str
    cpu: str | None = None
    num_cores: int = 4
    gpu: str | None = None

    @property
    def is_host(self) -> bool:
        return self.cpu is None

    @property
    def tuning_name(self) -> str:
        """Name of the folder of its tuning record: one for each CPU family, whose loops want the same shapes."""
        return platform.machine().lower() if self.is_host else self.name

    def describe_cpu(self, host_cpu: str) -> dict[str, object]:
        """The CPU as TVM's target takes it."""
        if self.is_host:
            num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            return {"kind": "llvm", "mcpu": host_cpu, "num-cores": num_cores}
        return {"kind": "llvm", "mtriple": AARCH64, "mcpu": self.cpu, "num-cores": self.num_cores}


_SPECS = (
    TargetSpec("host", "this machine's CPU"),
    TargetSpec("raspberrypi3", "Raspberry Pi 3, 64-bit system", "cortex-a53"),
    TargetSpec("raspberrypi4", "Raspberry Pi 4", "cortex-a72"),
    TargetSpec("raspberrypi5", "Raspberry Pi 5", "cortex-a76"),
    TargetSpec("jetson-nano-cpu", "Jetson Nano, CPU", "cortex-a57"),
    TargetSpec("jetson-xavier-cpu", "Jetson Xavier, CPU (Carmel)", "carmel", 6),
    TargetSpec("jetson-orin-cpu", "Jetson Orin, CPU", "cortex-a78ae", 6),
    TargetSpec("jetson-nano", "Jetson Nano, GPU (sm_53)", "cortex-a57", 4, "nvidia/jetson-nano"),
    TargetSpec("jetson-xavier", "Jetson Xavier, GPU (sm_72)", "carmel", 6, "nvidia/jetson-agx-xavier"),
    TargetSpec("jetson-orin", "Jetson Orin, GPU (sm_87)", "cortex-a78ae", 6, "nvidia/jetson-agx-orin-32gb"),
)
TARGETS = {spec.name: spec for spec in _SPECS}


def find_target(name: str) -> TargetSpec:
    """A row of the table, or `aarch64:CPU` for any other 64-bit ARM board, such as aarch64:cortex-a55."""
    if name in TARGETS:
        return TARGETS[name]
    arch, _, cpu = name.partition(":")
    if arch == "aarch64" and cpu.replace("-", "").isalnum():
        return TargetSpec(name, f"64-bit ARM board, {cpu}", cpu)
    raise InputError(f"unknown target {name!r}: choose one of {', '.join(TARGETS)}, or aarch64:CPU in LLVM's names")
