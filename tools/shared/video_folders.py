"""Finds the videos that annotations name in the folders that people keep them in."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.common.errors import InputError
from tools.shared.files import VIDEO_SUFFIXES, is_video


@dataclass(frozen=True)
class Entry:
    """One video of a list before its frames are counted; `path` is relative to the root, None where there is none."""

    name: str  # as the annotations call it
    path: str | None
    label: int | None  # None: a test video without one, which a list gives label 0
    looked_in: tuple[str, ...] = ()  # folders below the root, where there is no path


SUBSETS = ("train", "val", "test")
# Names that the folders of a split go by, also as in `train_256`.
_SPLIT_NAME = re.compile(r"(?:(train(?:ing)?)|(val(?:id(?:ation)?)?)|(test(?:ing)?))(?:[_-]?\d+)?", re.IGNORECASE)


def split_of(folder: str) -> str | None:
    """Which of train, val and test a folder's name says: `training` -> train, `val_256` -> val, `vault` -> None."""
    match = _SPLIT_NAME.fullmatch(folder)
    return SUBSETS[match.lastindex - 1] if match else None


def _class_key(name: str) -> str:
    """What all spellings of a class as a folder have in common: `Petting_animal_(not cat)` -> `pettinganimalnotcat`."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _without_suffix(name: str) -> str:
    """A name less the suffix of a video file, if it has one."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


class VideoFolders:
    """Finds videos below a root by class and name; each folder is listed once.

    padded: folders are named by six-digit numbers (`000007`) that a list may write without the zeros.
    """

    def __init__(self, root: Path, *, videos: bool, padded: bool = False) -> None:
        self.root = root
        self.videos = videos
        self.padded = padded
        self._entries = functools.cache(self._scan)
        self._listing = functools.cache(self._list)
        self._class_folders = functools.cache(self._by_class_key)
        self.places = functools.cache(self._places)

    def _scan(self, folder: str) -> list[tuple[str, bool]]:
        """(name, whether it is a folder), sorted, hidden ones left out; none where there is no such folder."""
        try:
            with os.scandir(self.root / folder) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError) as error:  # no permission, or a name that no disk can hold
            raise InputError(f"{self.root / folder}: {getattr(error, 'strerror', None) or error}") from None
        # macOS puts a __MACOSX with a shadow of every file into the archives it makes.
        return [(name, is_folder) for name, is_folder in found if not name.startswith(".") and name != "__MACOSX"]

    def _list(self, folder: str) -> dict[str, str]:
        """What annotations may call a video -> what a list calls it: a folder's name, or a file's less its suffix."""
        if self.videos:
            names = self._stems(folder)
        elif self.padded:
            names = [str(int(name)) if name.isdecimal() else name for name in self.classes(folder)]
        else:
            names = self.classes(folder)
        # Some extractors keep a file's name as it is: `x.avi` as a frame folder; some downloaders write `x.mp4.mkv`.
        stems = {_without_suffix(name): name for name in reversed(names)}
        return stems | {name: name for name in names}

    def _stems(self, folder: str) -> list[str]:
        """Names of the video files in a folder, less their suffixes (unless that is unusual for a video)."""
        names: dict[str, str] = {}
        for name, is_folder in self._entries(folder):
            if is_folder or not is_video(self.root / folder / name):
                continue
            stem = _without_suffix(name)
            if stem in names:
                raise InputError(
                    f"{self.root / folder}: {name} and {names[stem]} would be one video in a list: rename one"
                )
            names[stem] = name
        return list(names)

    def classes(self, folder: str) -> list[str]:
        """Folders in a folder, sorted."""
        return [name for name, is_folder in self._entries(folder) if is_folder]

    def names(self, folder: str) -> list[str]:
        """What lists call the videos of a folder, sorted."""
        return sorted(set(self._listing(folder).values()))

    def _by_class_key(self, folder: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.classes(folder):
            found.setdefault(_class_key(name), []).append(name)
        return found

    def _places(self, class_name: str | None, subset: str | None) -> tuple[str, ...]:
        """Folders that may hold the videos of a class: its own (in any spelling) in the root, the root, the same in
        the folders of the subset, or of all of them. `class_name` None: data without class folders."""
        split_folders = [name for name in self.classes("") if split_of(name) in ((subset,) if subset else SUBSETS)]
        places: list[str] = []
        for parent in ["", *split_folders]:
            if class_name is not None:
                same = self._class_folders(parent).get(_class_key(class_name), [])
                exact_first = sorted(same, key=lambda name: name != class_name) or [class_name]
                places += [os.path.join(parent, name) for name in exact_first]
            places.append(parent)
        return tuple(places)

    def entry(
        self, names: Sequence[str], label: int | None, *, class_name: str | None = None, subset: str | None = None
    ) -> Entry:
        """The first of these names that is in one of a class's places, called by the first name."""
        places = self.places(class_name, subset)
        for folder in places:
            listing = self._listing(folder)
            for name in names:
                if name in listing:
                    return Entry(names[0], os.path.join(folder, listing[name]), label)
        return Entry(names[0], None, label, places)
