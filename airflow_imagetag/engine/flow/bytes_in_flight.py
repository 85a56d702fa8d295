"""A limit of the image bytes that the workers of a run hold at the same time."""

from __future__ import annotations

import asyncio

MAX_BYTES_IN_FLIGHT = 512 * 1024 * 1024
"""Size of held images from which no further image is taken."""


class BytesInFlight:
    """Count the bytes of the images that are being labelled; made inside the loop that runs them.

    An image may be larger than what is left, or than it was expected, so the count may pass the
    limit by the images that were taken last.

    :param max_bytes: size from which no further image is taken.
    """

    def __init__(self, max_bytes: int = MAX_BYTES_IN_FLIGHT) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._released = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether the next image has to wait until another one has ended."""
        return self._held >= self._max_bytes

    def hold(self, size_bytes: int) -> None:
        """Count an image that is taken."""
        self._held += size_bytes

    def release(self, size_bytes: int) -> None:
        """Count an image that has ended, with the same size."""
        if self.is_full:
            self._released.set()
        self._held -= size_bytes

    def resize(self, expected_bytes: int, size_bytes: int) -> None:
        """Correct the size of an image that is loaded now."""
        self.release(expected_bytes)
        self.hold(size_bytes)

    async def wait(self) -> None:
        """Wait until an image has ended."""
        self._released.clear()
        await self._released.wait()
