"""Private: small pictures of stored images, read under the rules of trust."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from airflow_imagetag.errors import (
    ConfigurationError,
    ImageError,
    ImageNotAllowedError,
    ImageTagError,
    ImageTooLargeError,
    StorageError,
)
from airflow_imagetag.loading.content import MAX_LARGE_IMAGE_BYTES, ContentLoader
from airflow_imagetag.models import Image
from airflow_imagetag.safety.uris import is_http
from airflow_imagetag.stores.browsing import StoredImage

DOWNLOAD_SECONDS = 10.0
"""Maximum time to download an image."""


class NoPicture(enum.StrEnum):
    """Why an image has no small picture."""

    NO_URI = "no_uri"
    """The store has no URI: the bytes came from a table or a task."""
    URL = "url"
    """It is behind a URL, and this server fetches none."""
    NOT_ALLOWED = "not_allowed"
    """The rules of trust do not allow to read it."""
    NOT_READ = "not_read"
    """It does not exist, or the storage refuses it."""
    NOT_DECODED = "not_decoded"
    """It cannot be decoded."""
    TOO_LARGE = "too_large"
    """It has too many bytes or pixels."""
    BUSY = "busy"
    """Too many small pictures are being made."""
    NO_PILLOW = "no_pillow"
    """Pillow is not installed."""


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Makes small pictures.

    :param loader: reads images under the rules of trust.
    :param may_fetch: images behind URLs are downloaded.
    :param allowed_hosts: hosts of private networks that they may be downloaded from.
    :param user_agent: the header User-Agent.
    """

    loader: ContentLoader
    may_fetch: bool
    allowed_hosts: tuple[str, ...]
    user_agent: str

    def picture(self, image: StoredImage) -> bytes | NoPicture:
        """Return a small JPEG of an image, or why there is none; blocks."""
        try:
            from airflow_imagetag.loading.thumbnails import thumbnail

            content = self._content(image)
            return content if isinstance(content, NoPicture) else thumbnail(content)
        except ImportError:
            return NoPicture.NO_PILLOW
        except ImageNotAllowedError:
            return NoPicture.NOT_ALLOWED
        except ImageTooLargeError:
            return NoPicture.TOO_LARGE
        except (ConfigurationError, StorageError):
            return NoPicture.NOT_READ
        except ImageError as error:
            is_decoded = type(error).__name__ == "ImageDecodeError"
            return NoPicture.NOT_DECODED if is_decoded else NoPicture.NOT_READ
        except ImageTagError:
            return NoPicture.NOT_READ

    def _content(self, image: StoredImage) -> bytes | NoPicture:
        if not image.image_uri:
            return NoPicture.NO_URI
        if is_http(image.image_uri):
            if not self.may_fetch:
                return NoPicture.URL
            return asyncio.run(self._downloaded(image.image_uri))
        loaded = self.loader.load(Image(image.image_key, image.image_uri))
        return loaded.content or NoPicture.NOT_READ

    async def _downloaded(self, url: str) -> bytes:
        from airflow_imagetag.loading.download import Downloader

        downloader = Downloader(
            max_bytes=MAX_LARGE_IMAGE_BYTES,
            timeout_seconds=DOWNLOAD_SECONDS,
            allowed_hosts=self.allowed_hosts,
            user_agent=self.user_agent,
        )
        async with downloader:
            return await downloader.download(url)


def configured_thumbnails() -> Thumbnails:
    """Return the maker of small pictures that Airflow's configuration asks for.

    :raises ConfigurationError: an allowed folder is not an absolute path.
    """
    from airflow_imagetag.backends import configuration
    from airflow_imagetag.backends.parameter_files import configured_policy

    allowed = configured_policy()
    loader = ContentLoader(
        allowed.folders,
        max_bytes=MAX_LARGE_IMAGE_BYTES,
        connections=allowed.connections,
    )
    return Thumbnails(
        loader,
        configuration.ui_fetches_urls(),
        tuple(configuration.allowed_private_hosts()),
        configuration.user_agent(),
    )
