"""Rules for single classes: which of Jester's gestures the published demo masks or merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ops.common.class_names import JESTER_CLASSES

__all__ = ["JESTER", "JESTER_CLASSES", "PLAIN", "ClassRules", "rules_for", "shown_names", "what_to_do"]


@dataclass(frozen=True)
class ClassRules:
    """How single results are read, by class index.

    masked: never shown; the last kept result repeats instead. same_as: shown as another class. start: the result before
    the first frame; None for none.
    """

    masked: frozenset[int] = frozenset()
    same_as: Mapping[int, int] = field(default_factory=dict)
    start: int | None = None

    @property
    def hidden(self) -> frozenset[int]:
        """Classes that no list shows: those masked, and those shown as another one."""
        return self.masked | self.same_as.keys()


PLAIN = ClassRules()
# The published demo's rules. Masked: Rolling Hand Backward and Forward, Turning Hand Clockwise and Counterclockwise,
# Pulling Hand In. "Doing other things" is shown as "No gesture", which is also the result before the first frame.
JESTER = ClassRules(masked=frozenset({7, 8, 21, 22, 3}), same_as={0: 2}, start=2)


def rules_for(class_names: Sequence[str]) -> ClassRules:
    """Jester's rules for Jester's classes in their published order; none for any other list."""
    return JESTER if tuple(class_names) == JESTER_CLASSES else PLAIN


def shown_names(class_names: Sequence[str], rules: ClassRules) -> tuple[str, ...]:
    """The classes that can be an answer: neither masked nor shown as another one."""
    return tuple(name for i, name in enumerate(class_names) if i not in rules.hidden)


def what_to_do(class_names: Sequence[str]) -> str:
    """A sentence for the user: how to get an answer from a network with these classes."""
    if "turns_clockwise" in class_names:  # the repository's
        return (
            "This small network knows how a single handwritten digit moves, not hands or people. "
            "Start the demo with --jester for hand gestures."
        )
    if tuple(class_names) == JESTER_CLASSES:
        return "Sit at an arm's length from the camera, in good light, and make one of these gestures with a hand."
    return "Do one of these in front of the camera, in good light, with nothing else moving."
