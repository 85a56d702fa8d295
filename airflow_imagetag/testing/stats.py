"""What the emulator counted."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_imagetag.testing.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts at one moment; a snapshot that changes no more.

    Every image that was labelled is billed, even if its answer was then dropped or spoiled.
    """

    requests: int
    """Requests that arrived, whatever became of them."""
    by_status: Mapping[int, int]
    """HTTP status to the number of answers with it. A dropped connection has none."""
    by_code: Mapping[int, int]
    """Business code to the number of answers with it: 0 and the documented negative codes."""
    billed: int
    """Images labelled."""
    billed_images: Mapping[str, int]
    """SHA-256 of an image's bytes, in hexadecimal, to the number of times it was billed."""
    over_limit: int
    """Requests refused because they were over the quota."""
    dropped: int
    """Connections closed without an answer."""
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
    """Requests answered with 401 or 403 for what their Authorization header said or lacked."""


class Recorder:
    """Counts on the server's thread, and gives snapshots to any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._clear()

    def reset(self) -> None:
        """Forget every count; requests under way stay in flight."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._by_status: Counter[int] = Counter()
        self._by_code: Counter[int] = Counter()
        self._billed_images: Counter[str] = Counter()
        self._signatures: set[str] = set()
        self._arrivals = SlidingWindow(1.0)
        self._requests = self._over_limit = self._dropped = self._garbage = 0
        self._peak_per_second = self._rejected_signatures = 0
        self._max_in_flight = self._in_flight

    def arrived(self, now: float, authorization: str | None) -> None:
        """Count a request.

        :param now: seconds of a clock that does not run backwards.
        :param authorization: value of its Authorization header.
        """
        with self._lock:
            self._requests += 1
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            self._peak_per_second = max(self._peak_per_second, self._arrivals.add(now))
            if authorization is not None:
                self._signatures.add(authorization)

    def finished(self) -> None:
        """Count the end of a request, however it ended."""
        with self._lock:
            self._in_flight -= 1

    def answered(self, status: int, code: int | None) -> None:
        """Count an answer, by HTTP status and by business code where it has one."""
        with self._lock:
            self._by_status[status] += 1
            if code is not None:
                self._by_code[code] += 1

    def billed(self, image_id: str) -> None:
        """Count a labelled image."""
        with self._lock:
            self._billed_images[image_id] += 1

    def over_limit(self) -> None:
        """Count a request refused for the quota."""
        with self._lock:
            self._over_limit += 1

    def dropped(self) -> None:
        """Count a connection closed without an answer."""
        with self._lock:
            self._dropped += 1

    def garbage(self) -> None:
        """Count a useless answer."""
        with self._lock:
            self._garbage += 1

    def rejected_signature(self) -> None:
        """Count a request whose signature was not accepted."""
        with self._lock:
            self._rejected_signatures += 1

    def snapshot(self) -> Stats:
        """Return the counts as they are now."""
        with self._lock:
            return Stats(
                requests=self._requests,
                by_status=MappingProxyType(dict(self._by_status)),
                by_code=MappingProxyType(dict(self._by_code)),
                billed=self._billed_images.total(),
                billed_images=MappingProxyType(dict(self._billed_images)),
                over_limit=self._over_limit,
                dropped=self._dropped,
                garbage=self._garbage,
                in_flight=self._in_flight,
                max_in_flight=self._max_in_flight,
                peak_requests_per_second=self._peak_per_second,
                signatures_seen=len(self._signatures),
                rejected_signatures=self._rejected_signatures,
            )
