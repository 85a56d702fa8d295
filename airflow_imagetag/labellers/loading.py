"""Private: the part of a labeller that loads images under the rules of trust."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.labellers.base import Labeller, Prepared
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.models import Image
from airflow_imagetag.runtime.threads import DaemonExecutor

MAX_LOADING = 32
"""Maximum number of images that are read from disks and storages at the same time."""

FIRST_IMAGE_BYTES = 32 * 1024 * 1024
"""Size that is assumed of images that are loaded, until some are."""

SIZE_WEIGHT = 0.1
"""Weight of the newest image in the expected size, if it is smaller."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LoadingLabeller(Labeller):
    """Load images in the event loop where that takes next to no time, else in threads.

    :param loader: loads images; its downloader is closed with this labeller.
    :param max_connections: maximum number of images that are read at the same time.
    """

    def __init__(self, loader: ContentLoader, *, max_connections: int) -> None:
        self._loader = loader
        self._loading = DaemonExecutor(min(max_connections, MAX_LOADING), "imagetag-load")
        self._resources = AsyncExitStack()
        self._expected_bytes: float = FIRST_IMAGE_BYTES

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            if self._loader.downloader is not None:
                await resources.enter_async_context(self._loader.downloader)
            resources.callback(self._loading.shutdown)
            await self.open_resources(resources)
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._resources.__aexit__(kind, error, traceback)

    async def open_resources(self, resources: AsyncExitStack) -> None:
        """Open the resources that a labeller needs beside the loader.

        :param resources: closes it, when the labeller is left.
        """

    def prepare_ahead(self, image: Image) -> Prepared | None:
        """Compute the digest of bytes in the thread that reads the source."""
        if image.content is None:
            return None
        try:
            return Prepared(image, self._loader.load(image))
        except ImageTagError:
            # ``prepare`` raises it again, where the engine handles errors.
            return None

    def expected_bytes(self, image: Image) -> int:
        """Return the expected size, by the images that were loaded; 0 for a URL that is sent."""
        if not self._loader.loads_bytes(image):
            return 0
        return int(self._expected_bytes)

    def needs_io(self, image: Image) -> bool:
        """Tell whether ``prepare`` reads the image from somewhere, or uses a thread for it."""
        return self._loader.needs_io(image)

    async def prepare(self, image: Image) -> Prepared:
        """Load the image, or take its URL, and compute the digest of its bytes.

        :raises ImageError: the image cannot be labelled.
        :raises StorageError: its storage, or the server behind its URL, failed.
        :raises ConfigurationError: the storage cannot make presigned URLs.
        """
        fetched = image if image.content is not None else await self._loader.fetch(image)
        payload = self._loader.inline(fetched)
        if payload is None:
            payload = await in_thread(self._loading, self._loader.load, fetched)
        if image.content is None and payload.content is not None:
            self._record_size(len(payload.content))
        return Prepared(image, payload)

    def _record_size(self, size_bytes: int) -> None:
        # Up at once and down slowly: small images are loaded first, and say little of the others.
        expected = self._expected_bytes
        self._expected_bytes = max(size_bytes, expected + (size_bytes - expected) * SIZE_WEIGHT)


async def in_thread(pool: Executor, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """Return the result of blocking work in a thread of a pool."""
    return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
