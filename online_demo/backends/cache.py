"""Where exported and compiled networks are kept, each under a digest of everything that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ops.common.errors import InputError
from ops.common.files import atomic_path

CACHE_VARIABLE = "TSM_DEMO_CACHE"
_FORMAT = 1  # raise it when our own code makes other files from the same input


def cache_folder() -> Path:
    """$TSM_DEMO_CACHE, else `tsm_online_demo` in the user's cache folder; made if need be, for this user alone."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = Path(os.environ.get(CACHE_VARIABLE) or base / "tsm_online_demo").expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot keep compiled networks there ({error.strerror}); set {CACHE_VARIABLE} to another folder"
        ) from None
    return folder


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each package, `-` for one that is not there."""
    found = dict.fromkeys(packages, "-")
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
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
