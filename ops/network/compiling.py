"""Errors of torch.compile that a user understands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ops.common.errors import InputError


@contextlib.contextmanager
def compile_errors(enabled: bool = True) -> Iterator[None]:
    """Turn a failure of torch.compile in the block (no C++ compiler, say) into one line; nets compile when called."""
    if not enabled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import exc

    kinds = (TorchDynamoException, getattr(exc, "InductorError", TorchDynamoException))  # the latter since torch 2.7
    try:
        yield
    except kinds as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"--compile does not work on this machine ({reason}): leave it out") from error
