"""Names of classes: read from a file, and those of Jester."""

from __future__ import annotations

from pathlib import Path

from ops.common.errors import InputError, counted, is_one_line

# In label order; the published checkpoints hold no names.
JESTER_CLASSES = (
    "Doing other things",
    "Drumming Fingers",
    "No gesture",
    "Pulling Hand In",
    "Pulling Two Fingers In",
    "Pushing Hand Away",
    "Pushing Two Fingers Away",
    "Rolling Hand Backward",
    "Rolling Hand Forward",
    "Shaking Hand",
    "Sliding Two Fingers Down",
    "Sliding Two Fingers Left",
    "Sliding Two Fingers Right",
    "Sliding Two Fingers Up",
    "Stop Sign",
    "Swiping Down",
    "Swiping Left",
    "Swiping Right",
    "Swiping Up",
    "Thumb Down",
    "Thumb Up",
    "Turning Hand Clockwise",
    "Turning Hand Counterclockwise",
    "Zooming In With Full Hand",
    "Zooming In With Two Fingers",
    "Zooming Out With Full Hand",
    "Zooming Out With Two Fingers",
)


def read_class_names(path: str | Path, num_class: int | None = None) -> list[str]:
    """Class names in label order: a name a line, or lines `1 ApplyEyeMakeup` in a file called classInd.txt.

    Raises InputError with path and line, also for a name that is there twice or holds control characters: a damaged
    file would give results another class's name; and unless there are `num_class` of them, where that is given.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read class names from {path}: {error}") from error
    names: dict[str, None] = {}  # in order
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not is_one_line(text):
            raise InputError(f"{path}:{number}: a class name with control characters: {text[:100]!r}")
        if path.name == "classInd.txt":
            index, _, text = text.partition(" ")
            if index != str(len(names) + 1) or not text.strip():
                raise InputError(f"{path}:{number}: expected `{len(names) + 1} name`, got {line!r}")
        name = text.strip()
        if name in names:
            raise InputError(f"{path}:{number}: the class {name!r} is there twice")
        names[name] = None
    if num_class not in (None, len(names)):
        raise InputError(
            f"{path} has {counted(len(names), 'name')}, the network {counted(num_class, 'class', 'classes')}: "
            "give a line for each class"
        )
    return list(names)
