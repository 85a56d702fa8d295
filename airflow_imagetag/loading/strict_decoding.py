"""Have Pillow report damaged files, although another library may have told it not to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Strictness:
    """Keep Pillow's ``LOAD_TRUNCATED_IMAGES`` off as long as any thread decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._was_lenient = False

    def enter(self) -> None:
        from PIL import ImageFile

        with self._lock:
            if self._active == 0:
                self._was_lenient = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._active += 1

    def leave(self) -> None:
        from PIL import ImageFile

        with self._lock:
            self._active -= 1
            if self._active == 0 and self._was_lenient:
                ImageFile.LOAD_TRUNCATED_IMAGES = True


_STRICTNESS = _Strictness()


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Have damaged files reported during a ``with`` block, in the whole process.

    The last thread in such a block restores the setting.
    """
    _STRICTNESS.enter()
    try:
        yield
    finally:
        _STRICTNESS.leave()
