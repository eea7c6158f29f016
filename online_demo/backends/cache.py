"""Where compiled networks are kept, by everything that they depend on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ops.common.errors import InputError
from ops.common.files import atomic_path

CACHE_VARIABLE = "TSM_DEMO_CACHE"
Loaded = TypeVar("Loaded")
_FORMAT = 1  # raise it when our own code makes other files from the same input


def cache_folder() -> Path:
    """$TSM_DEMO_CACHE, else `tsm_online_demo` in the user's cache folder. Made if need be, for this user alone.

    Raises:
        InputError: cannot be made, or others may write there: what lies in it is run.
    """
    given = os.environ.get(CACHE_VARIABLE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(given).expanduser() if given else base.expanduser() / "tsm_online_demo"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot keep compiled networks there: {error.strerror}; set {CACHE_VARIABLE}"
        ) from None
    if not stat.S_ISDIR(info.st_mode):
        raise InputError(f"{folder} is not a folder; set {CACHE_VARIABLE} to one for compiled networks")
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise InputError(
            f"{folder}: others may write there, and compiled networks are run: chmod 700 it, or set {CACHE_VARIABLE}"
        )
    return folder


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed version of each package, `-` for one that is not there."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "-"
    return found


def cached_file(stem: str, suffix: str, depends_on: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """The file that `build` writes for these dependencies: built once, kept, and never seen half written.

    Args:
        stem, suffix: beginning and end of the file's name, for people; between them goes a digest.
        depends_on: plain data; another value gives another file.
        build: writes the file to the path that it is given.
    """
    text = json.dumps({"format": _FORMAT, **depends_on}, sort_keys=True)
    path = cache_folder() / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:20]}{suffix}"
    if not path.is_file():
        with atomic_path(path) as temporary:
            build(temporary)
    return path


def load_kept(find: Callable[[], Path], load: Callable[[Path], Loaded]) -> Loaded:
    """Load a cached file; one that turns out to be damaged is deleted and made once more."""
    path = find()
    try:
        return load(path)
    except InputError:
        path.unlink(missing_ok=True)
    return load(find())
