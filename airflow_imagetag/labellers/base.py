"""The contract between the engine and the labeller of one image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.services.messages import Payload


# One is made for every image; a frozen dataclass takes five times as long.
@dataclass(slots=True)
class Prepared:
    """An image with its payload.

    :param image: names the image in results and messages.
    :param payload: the URL of the image, or its bytes with their digest.
    """

    image: Image
    payload: Payload


class Labeller(ABC):
    """Label one image at a time; an async context that holds connections or a model.

    The engine calls ``prepare``, ``fit`` and ``call`` in this order, for many images concurrently.
    Each method decides by itself whether its work runs in the event loop or in a thread, and may be
    cancelled.
    """

    calls_per_image: int = 1
    """Number of calls that the vendor bills for one ``call``."""

    reports_departure: bool = False
    """Whether ``call`` reports when its request leaves (``runtime.departure``). Otherwise it counts
    as having left when it was called."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release connections, threads and models; threads that hang are left behind."""
        del kind, error, traceback

    def prepare_ahead(self, image: Image) -> Prepared | None:
        """Prepare an image in the thread that reads the source, if that saves time.

        :return: the prepared image, or None to leave it to ``prepare``, also after an error.
        """
        del image
        return None

    def expected_bytes(self, image: Image) -> int:
        """Return the expected size of the bytes that ``prepare`` will load; 0 for none.

        The engine takes no further image while those at hand hold too much memory.

        :param image: an image without bytes.
        """
        del image
        return 0

    def needs_io(self, image: Image) -> bool:
        """Tell whether ``prepare`` reads the image from somewhere, or uses a thread for it."""
        del image
        return True

    @abstractmethod
    async def prepare(self, image: Image) -> Prepared:
        """Load the image, or take its URL, and compute the digest of its bytes.

        :raises ImageError: the image cannot be labelled.
        :raises StorageError: the image's storage failed; the engine tries again.
        """

    async def fit(self, prepared: Prepared) -> Prepared:
        """Check the image against the limits of the service, and resize it if that is asked for.

        The engine calls this once for each image that it sends, after it has looked for a paid
        answer with the digest.

        :return: the same object, or one with another payload and the digest of the original bytes.
        :raises ImageError: the service does not take the image.
        """
        return prepared

    @abstractmethod
    async def call(self, prepared: Prepared) -> TagResult:
        """Send one request and return the labels; does not retry.

        The result carries the image's version and the SHA-256 of its bytes.

        :raises ImageTagError: its class says what the caller may do.
        """
