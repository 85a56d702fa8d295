"""Private: the counts of an emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Immutable snapshot of the counts.

    Every labelled image is billed, once for each scene that its request asks for, even if its
    answer was then dropped or spoiled.
    """

    requests: int
    """Requests that arrived."""
    by_api: Mapping[str, int]
    """API, named as in the connection's ``api``, to the number of its requests."""
    by_status: Mapping[int, int]
    """HTTP status to the number of answers. A dropped connection has no status."""
    by_code: Mapping[int | str, int]
    """Business code to the number of answers: 0 for the success of any API, the documented negative
    codes, and the codes of TIIA and COS as text."""
    billed: int
    """Calls that cost money: labelled images, times the scenes of their requests."""
    billed_by_api: Mapping[str, int]
    """Billed calls by API."""
    billed_images: Mapping[str, int]
    """SHA-256 of an image's bytes, in hexadecimal, to its billed calls."""
    refused: int
    """Requests answered with an error: an HTTP error status, or a code other than 0."""
    refused_by_api: Mapping[str, int]
    """Refused requests by API."""
    over_limit: int
    """Requests refused for the quota."""
    dropped: int
    """Connections closed without an answer."""
    billed_dropped: int
    """Billed calls whose connection was closed without an answer."""
    garbage: int
    """Garbage answers, with HTTP status 200."""
    in_flight: int
    """Requests in progress."""
    max_in_flight: int
    """Maximum number of requests in progress at one time."""
    peak_requests_per_second: int
    """Maximum number of requests that arrived within one second."""
    signatures_seen: int
    """Distinct values of the Authorization header."""
    rejected_signatures: int
    """Requests refused for their signature: 401, 403 or AuthFailure.*."""
    object_downloads: int = 0
    """Objects of the bucket that were downloaded. Downloads and listings are no ``requests``."""
