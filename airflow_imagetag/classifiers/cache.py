"""Files that are made once and kept in a cache folder, each with its digest in its name."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_FOLDER: Final = "airflow-provider-imagetag"


def default_folder() -> Path:
    """Return the user's folder for files that can be made again."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of these folders ignores a relative path.
    parent = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
    return parent / _FOLDER


class DigestCache:
    """A folder of files with their SHA-256 in their names; several processes may use it at once.

    A file that is damaged or incomplete does not match its name, and is made again. A folder that
    cannot be used only costs time.

    :param folder: made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digest_of(self, name: str) -> str | None:
        """Return the SHA-256 that a file's name holds, without reading the file; None for no file.

        :param name: begins the file's name.
        """
        found = self._path(name)
        return None if found is None else found.stem.rpartition("-")[2]

    def get(self, name: str, make: Callable[[], bytes]) -> tuple[bytes, str]:
        """Return the bytes of a file and their SHA-256.

        :param name: begins the file's name; another content must have another name.
        :param make: returns the bytes if there is no such file.
        """
        content = self._read(name)
        if content is None:
            content = make()
            self._write(name, content)
        return content, hashlib.sha256(content).hexdigest()

    def _path(self, name: str) -> Path | None:
        try:
            return next(self._folder.glob(f"{name}-{'[0-9a-f]' * 64}.onnx"), None)
        except OSError:
            return None

    def _read(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            content = None if path is None else path.read_bytes()
        except OSError:
            return None
        if path is None or content is None:
            return None
        if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
            log.warning("%s is damaged: it is made again", path)
            with suppress(OSError):
                path.unlink()
            return None
        return content

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / f"{name}-{hashlib.sha256(content).hexdigest()}.onnx"
        temporary: str | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=f".{name}.")
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            # By a rename, so that no process ever reads a part of it.
            Path(temporary).replace(path)
        except OSError as error:
            if temporary is not None:
                with suppress(OSError):
                    Path(temporary).unlink(missing_ok=True)
            log.info("%s cannot be kept in %s: %s", name, self._folder, error)
