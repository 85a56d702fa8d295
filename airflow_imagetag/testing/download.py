"""Fetching the image that a request names by URL."""

from __future__ import annotations

import aiohttp

from airflow_imagetag.testing.api import ImageError, Problem


async def download(session: aiohttp.ClientSession, url: str, *, max_bytes: int) -> bytes:
    """Return the bytes behind the URL.

    :param session: its timeout is the time that a download may take.
    :param url: what the request named.
    :param max_bytes: a larger image is refused.
    :raises ImageError: when there is no image to be had.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise _unavailable("it is not http or https", Problem.URL_INVALID)
    try:
        async with session.get(url) as response:
            if response.status != 200:
                raise _unavailable(f"HTTP status {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > max_bytes:
                    raise _unavailable(f"it is over {max_bytes} bytes", Problem.TOO_LARGE)
    except TimeoutError:
        raise _unavailable("it took too long") from None
    # A URL that no address can be read from is a ValueError in some of its forms.
    except (aiohttp.InvalidURL, ValueError) as error:
        raise _unavailable(type(error).__name__, Problem.URL_INVALID) from None
    except (aiohttp.ClientError, OSError) as error:
        raise _unavailable(type(error).__name__) from None
    if not content:
        raise ImageError(Problem.EMPTY, "the image behind the url is empty")
    return bytes(content)


def _unavailable(reason: str, problem: Problem = Problem.NOT_DOWNLOADED) -> ImageError:
    return ImageError(problem, f"the url could not be downloaded: {reason}")
