"""How far an epoch is, and who wants to hear of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ops.utils import AverageMeter


class StopRequestedError(Exception):
    """A signal asked the run to end during validation."""


@dataclass
class EpochProgress:
    """How far an epoch is, and what it has measured so far; a checkpoint within an epoch carries it.

    Attributes:
        step: steps done.
        num_unread: samples left out because they could not be read.
        num_nonfinite: steps left out because the loss or the gradient was not finite.
        seconds: time spent in the steps.
    """

    epoch: int
    step: int = 0
    num_unread: int = 0
    num_nonfinite: int = 0
    seconds: float = 0.0
    losses: AverageMeter = field(default_factory=AverageMeter)
    top1: AverageMeter = field(default_factory=AverageMeter)
    top5: AverageMeter = field(default_factory=AverageMeter)

    def state_dict(self) -> dict[str, Any]:
        return {key: v.state_dict() if isinstance(v, AverageMeter) else v for key, v in vars(self).items()}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> EpochProgress:
        progress = cls(epoch=state["epoch"])
        for key, value in vars(progress).items():
            if isinstance(value, AverageMeter):
                value.load_state_dict(state[key])
            else:
                setattr(progress, key, type(value)(state[key]))
        return progress


def _ignore(*_: Any) -> None:
    """The hook of a caller that does not listen."""


@dataclass(frozen=True)
class Hooks:
    """What a caller of the engine wants to hear of, on every process.

    Attributes:
        log: a line for the screen and the log.
        trace: (step, learning rate, loss, gradient norm) of a step.
        save: called behind every `save_every` steps; the weights are known to be finite then.
        should_stop: whether a signal asked to end. The step under way is finished first.
        describe_nonfinite: (step, batch, loss, gradient norm) -> samples, and where they were saved.
        unread: a sample that could not be read and was left out.
    """

    log: Callable[[str], None] = _ignore
    trace: Callable[[int, float, float, float], None] = _ignore
    save: Callable[[EpochProgress], None] = _ignore
    should_stop: Callable[[], bool] = bool
    describe_nonfinite: Callable[[int, Any, float, float], str] = lambda *_: "no details"
    unread: Callable[[str], None] = _ignore
