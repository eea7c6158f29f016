"""The core: shift, TSN, sampling, data, checkpoints, training loop."""

from ops.common.cpu import share_cores

share_cores()
