"""What the server tells the page, as JSON; `kind` says what a message is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from online_demo.recognizer import Result
from online_demo.show.text import readable

ENDED = {"kind": "ended"}


@dataclass(frozen=True)
class About:
    """What the page says of the demo.

    source: None if only browsers send pictures. todo: how to get an answer. rate: frames a second that a browser's
    camera is to send; None for all.
    """

    network: str
    source: str | None
    class_names: Sequence[str]
    todo: str
    rate: float | None = None

    def message(self) -> dict[str, object]:
        return {
            "kind": "about",
            "network": self.network,
            "source": self.source,
            "classes": [readable(name) for name in self.class_names],
            "todo": self.todo,
            "rate": self.rate,
        }


def answer(result: Result, **figures: float) -> dict[str, object]:
    """A result with names as people read them, and figures such as `capture_ms` to two decimals."""
    return {
        "kind": "answer",
        "label": readable(result.label),
        "certainty": None if result.certainty is None else round(result.certainty, 4),
        "unsure": result.is_unsure,
        "top": [[readable(name), round(probability, 4)] for name, probability in result.top],
        "network_ms": round(result.network_ms, 2),
        **{name: round(value, 2) for name, value in figures.items()},
    }


def status(text: str) -> dict[str, object]:
    """Why no picture comes, "" for no reason to speak of."""
    return {"kind": "status", "text": text}


def refusal(reason: str, text: str) -> dict[str, object]:
    """The last message before the server closes the connection; reason: "full" or "frame"."""
    return {"kind": "error", "reason": reason, "text": text}
