"""Rules for single classes: which of Jester's gestures the published demo masks or merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ops.common.class_names import JESTER_CLASSES

__all__ = ["JESTER", "JESTER_CLASSES", "PLAIN", "ClassRules", "rules_for"]


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
