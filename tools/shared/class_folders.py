"""Labels from class folders: which videos there are, and which of them are set aside for validation."""

from __future__ import annotations

import itertools
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence

from ops.common.errors import InputError, counted, escaped
from tools.shared.files import videos_and_others
from tools.shared.report import first_of
from tools.shared.video_folders import Entry, VideoFolders, split_of


def entries_from_folders(
    folders: VideoFolders, *, val_share: float, seed: int, group: re.Pattern[str] | None = None
) -> tuple[list[str], dict[str, list[Entry]]]:
    """Class names in label order, and the entries of each subset that has any.

    Subsets are those of the folders train, val and test, if there are such; else `val_share` of each class is set aside
    for validation. `group` keeps videos together whose names it matches alike (its first group, else all it matches).
    """
    top = folders.classes("")
    split_folders = [name for name in top if split_of(name)]
    classes = sorted({name for split in split_folders for name in folders.classes(split)})
    subsets: dict[str, list[Entry]] = {}
    for split in split_folders:
        found = _entries(folders, f"{split}/", classes)
        subsets.setdefault(split_of(split), []).extend(found)
    if subsets.get("train") or (top and top == split_folders):
        if others := [name for name in top if name not in split_folders]:
            print(escaped(f"not read, beside {', '.join(split_folders)}: {first_of(others)}"), file=sys.stderr)
    else:  # a class may be called `training`
        classes = top
        entries = _entries(folders, "", classes)
        chosen = (
            _choose_groups(entries, group, val_share, seed) if group else _choose(entries, classes, val_share, seed)
        )
        subsets = {
            "train": [entry for entry in entries if entry not in chosen],
            "val": [entry for entry in entries if entry in chosen],
        }
    subsets = {subset: entries for subset, entries in subsets.items() if entries}
    if not subsets:
        wanted = "<class>/<video>" + (".mp4 or the like" if folders.videos else "/ with frames")
        hint = " (--videos lists video files)" if not folders.videos and videos_and_others(folders.root)[0] else ""
        raise InputError(f"{folders.root}: no {wanted} in it, nor in train/ and val/ in it{hint}")
    _report_gaps(classes, subsets)
    return classes, subsets


def _entries(folders: VideoFolders, parent: str, classes: Sequence[str]) -> list[Entry]:
    """Entries of all videos of a split folder (`train/`), or of the root ("")."""
    if folders.videos:
        deeper = [f"{parent}{name}/{folder}" for name in classes for folder in folders.classes(parent + name)]
        if deeper:
            print(escaped(f"not read, folders in class folders: {first_of(deeper)}"), file=sys.stderr)
    paths = [
        (f"{parent}{name}/{video}", label)
        for label, name in enumerate(classes)
        for video in folders.names(parent + name)
    ]
    return [Entry(path, path, label) for path, label in paths]


def _report_gaps(classes: Sequence[str], subsets: dict[str, list[Entry]]) -> None:
    """Say on stderr which classes have no videos to train on, and which none to validate on."""
    for subset in ("train", "val"):
        labels = {entry.label for entry in subsets.get(subset, ())}
        without = [name for label, name in enumerate(classes) if label not in labels]
        if not labels:
            print(f"no {subset} list: there are no videos for it", file=sys.stderr)
        elif without:
            print(escaped(f"classes without {subset} videos: {first_of(without)}"), file=sys.stderr)


# --- which videos are for validation ----------------------------------------------------------------------------------


def _num_val(num_videos: int, val_share: float) -> int:
    """How many of a class's videos are for validation: one at least is for training."""
    return min(round(num_videos * val_share), num_videos - 1)


def _choose(entries: Sequence[Entry], classes: Sequence[str], val_share: float, seed: int) -> set[Entry]:
    chosen: set[Entry] = set()
    for label, videos in itertools.groupby(entries, key=lambda entry: entry.label):  # they come class by class
        videos = list(videos)
        chosen.update(random.Random(f"{seed} {classes[label]}").sample(videos, _num_val(len(videos), val_share)))
    return chosen


def group_of(entry: Entry, group: re.Pattern[str]) -> str:
    """What the pattern finds in a video's name; InputError if nothing."""
    match = group.search(os.path.basename(entry.path))
    text = match and ((match[1] if group.groups else None) or match[0])
    if not text:
        raise InputError(f"--group {group.pattern!r} matches nothing in {entry.path}: it must match every video's name")
    return text


def _choose_groups(entries: Sequence[Entry], group: re.Pattern[str], val_share: float, seed: int) -> set[Entry]:
    """Whole groups in random order, each where it brings its classes nearer to their share; then, for classes that
    still have no validation video, the smallest group that has one. Every class keeps a group for training."""
    sizes: dict[str, Counter[int]] = {}  # group -> videos of each class
    for entry in entries:
        sizes.setdefault(group_of(entry, group), Counter())[entry.label] += 1
    total = Counter(entry.label for entry in entries)
    goal = {label: _num_val(count, val_share) for label, count in total.items()}
    names = sorted(sizes)
    random.Random(str(seed)).shuffle(names)
    chosen: set[str] = set()
    have: Counter[int] = Counter()

    def comes_nearer(group_sizes: Counter[int]) -> bool:
        """Whether it takes the classes nearer to their goals, all in all."""
        return sum(abs(goal[c] - have[c]) - abs(goal[c] - have[c] - n) for c, n in group_sizes.items()) > 0

    def starts_a_class(group_sizes: Counter[int]) -> bool:
        return any(goal[c] and not have[c] for c in group_sizes)

    by_size = sorted(names, key=lambda name: sizes[name].total())
    for is_wanted, order in ((comes_nearer, names), (starts_a_class, by_size)):
        for name in order:
            leaves_some = all(have[c] + n < total[c] for c, n in sizes[name].items())
            if name not in chosen and leaves_some and is_wanted(sizes[name]):
                chosen.add(name)
                have.update(sizes[name])
    return {entry for entry in entries if group_of(entry, group) in chosen}


def describe_groups(subsets: dict[str, list[Entry]], group: re.Pattern[str]) -> str:
    """How many groups went where, and how many are in training and validation both."""
    groups = {subset: {group_of(entry, group) for entry in entries} for subset, entries in subsets.items()}
    text = ", ".join(f"{len(names)} in {subset}" for subset, names in groups.items())
    both = groups.get("train", set()) & groups.get("val", set())
    total = counted(len(set().union(*groups.values())), "group")
    return f"{total} by {group.pattern!r}: {text}" + (f", {len(both)} of them in both train and val" if both else "")
