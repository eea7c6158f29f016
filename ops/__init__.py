"""The core: shift, TSN, sampling, data, checkpoints, training loop."""
