"""The process keeps the memory that it frees, and its threads sleep soon; each can be switched off."""

import os
import subprocess
import sys

import pytest

from tests.helpers import PROJECT

_FAULTS = """
import resource, sys
from ops.common.distributed import init_from_env
import torch
init_from_env()
def fill():
    return torch.ones(16 * 2**20)  # 64 MB: 16,384 pages of 4 kB
for _ in range(20):
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_SPINCOUNT = "import ops, os; print(os.environ.get('GOMP_SPINCOUNT'))"


def run_python(code: str, **variables: str) -> str:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "TSM_"))}
    env = {**keep, "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again_without_page_faults_unless_switched_off():
    assert int(run_python(_FAULTS)) < 100
    assert int(run_python(_FAULTS, TSM_KEEP_MEMORY="0")) > 1000  # fewer than the pages where the kernel gives huge ones


def test_threads_sleep_soon_unless_the_user_decides():
    assert run_python(_SPINCOUNT) == "1000"
    assert run_python(_SPINCOUNT, GOMP_SPINCOUNT="7") == "7"
    assert run_python(_SPINCOUNT, OMP_WAIT_POLICY="ACTIVE") == "None"
