"""Labelling images without holding up the server: a thread pool and a memory of results."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from airflow_imagetag.testing.recognition import label

if TYPE_CHECKING:
    from airflow_imagetag.testing.api import Labels

_THREADS: Final = 2
_REMEMBERED_IMAGES: Final = 4096


class Laboratory:
    """Labels images; the same bytes are measured once. Used from one event loop only."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="imagetag-emulator-labels")
        self._remembered: OrderedDict[str, Labels] = OrderedDict()

    async def label(self, image: bytes) -> tuple[str, Labels]:
        """Return the SHA-256 of the image in hexadecimal, and its labels.

        :raises UndecodableError: when the bytes do not decode to a picture.
        """
        image_id = hashlib.sha256(image).hexdigest()
        labels = self._remembered.get(image_id)
        if labels is None:
            loop = asyncio.get_running_loop()
            labels = await loop.run_in_executor(self._pool, label, image)
            self._remembered[image_id] = labels
            if len(self._remembered) > _REMEMBERED_IMAGES:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(image_id)
        return image_id, labels

    def close(self) -> None:
        """Wait for the measurements under way and end the threads."""
        self._pool.shutdown(cancel_futures=True)
