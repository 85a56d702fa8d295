"""Local files that data names, opened so that the file that was checked is the one that is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from airflow_imagetag.safety.uris import is_below

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Opening a named pipe must not wait for a writer."""

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_DIRECTORY
"""A folder that may be passed through, but not listed, can be opened where there is ``O_PATH``."""


class OutsideFoldersError(Exception):
    """The file lies in none of the folders."""


class NoRegularFileError(Exception):
    """The name is that of a folder, a device or a pipe."""


@contextmanager
def open_local(path: str, folders: Collection[str] | None) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    The folders below an allowed one are opened one after the other, and no link is followed in
    them. So a link that takes the place of a file or a folder after the check leads nowhere.

    :param path: may have links, which are resolved first.
    :param folders: absolute paths, of which one must hold the file; None for any file.
    :raises OutsideFoldersError: the file is in none of the folders.
    :raises NoRegularFileError: it is no regular file.
    :raises OSError: it cannot be opened; ``ELOOP`` or ``ENOTDIR`` if it was replaced by a link.
    :raises ValueError: the name has a zero byte, or half of a character.
    """
    real = os.path.realpath(path)
    if folders is None:
        descriptor = os.open(real, _READ)
    else:
        folder = next((folder for folder in folders if is_below(real, folder)), None)
        if folder is None:
            raise OutsideFoldersError
        descriptor = _open_below(os.path.realpath(folder), real)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoRegularFileError
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _open_below(folder: str, path: str) -> int:
    """Return the descriptor of a file below a folder, without following a link on the way."""
    if path == folder:
        folder = str(Path(folder).parent)
    *folders, name = Path(path).relative_to(folder).parts or (".",)
    at = os.open(folder, _FOLDER)
    try:
        for part in folders:
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, _READ | os.O_NOFOLLOW, dir_fd=at)
    finally:
        os.close(at)
