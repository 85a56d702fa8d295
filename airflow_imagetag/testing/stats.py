"""What the emulator counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts at one moment; a snapshot that changes no more.

    Every image that was labelled is billed, even if its answer was then dropped or spoiled, and
    once for each scene that a request of DetectLabel asks for.
    """

    requests: int
    """Requests that arrived, whatever became of them."""
    by_api: Mapping[str, int]
    """API, as the connection's ``api`` names it, to the number of requests that arrived for it."""
    by_status: Mapping[int, int]
    """HTTP status to the number of answers with it. A dropped connection has none."""
    by_code: Mapping[int | str, int]
    """Business code to the number of answers with it: 0, the documented negative codes, and those
    of TIIA as text. 0 is the success of any API."""
    billed: int
    """Calls that cost money: images labelled, times the scenes asked for."""
    billed_by_api: Mapping[str, int]
    """The same by API."""
    billed_images: Mapping[str, int]
    """SHA-256 of an image's bytes, in hexadecimal, to the number of times it was billed."""
    over_limit: int
    """Requests refused because they were over the quota."""
    dropped: int
    """Connections closed without an answer."""
    billed_dropped: int
    """Billed calls among them: their client paid and does not know it."""
    garbage: int
    """Useless answers sent with HTTP status 200."""
    in_flight: int
    """Requests being answered at this moment."""
    max_in_flight: int
    """The most requests that were being answered at the same time."""
    peak_requests_per_second: int
    """The most requests that arrived in any one second."""
    signatures_seen: int
    """Distinct values of the Authorization header."""
    rejected_signatures: int
    """Requests refused for what their signature said or lacked: 401, 403 or AuthFailure.*."""
