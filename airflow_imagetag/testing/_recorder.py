"""Count the events of a server."""

from __future__ import annotations

import threading
from collections import Counter, deque
from types import MappingProxyType

from airflow_imagetag.testing.stats import Stats


class SlidingWindow:
    """Count the events of the last ``length_seconds``.

    The caller gives the time, in seconds of any monotonic clock.

    :param length_seconds: age at which an event stops counting.
    """

    def __init__(self, length_seconds: float) -> None:
        self._length_seconds = length_seconds
        self._times: deque[float] = deque()

    def count(self, now: float) -> int:
        """Return the number of events in the window that ends at ``now``."""
        oldest = now - self._length_seconds
        while self._times and self._times[0] <= oldest:
            self._times.popleft()
        return len(self._times)

    def add(self, now: float) -> int:
        """Record an event at ``now`` and return the count, this event included."""
        self._times.append(now)
        return self.count(now)


class Recorder:
    """Count on the server's thread; any thread may take snapshots."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._clear()

    def reset(self) -> None:
        """Set every count to zero; requests in progress stay in flight."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._by_status: Counter[int] = Counter()
        self._by_api: Counter[str] = Counter()
        self._by_code: Counter[int | str] = Counter()
        self._billed_by_api: Counter[str] = Counter()
        self._refused_by_api: Counter[str] = Counter()
        self._billed_images: Counter[str] = Counter()
        self._signatures: set[int | str] = set()
        self._arrivals = SlidingWindow(1.0)
        self._requests = self._refused = self._over_limit = self._dropped = self._garbage = 0
        self._billed_dropped = self._object_downloads = 0
        self._peak_per_second = self._rejected_signatures = 0
        self._max_in_flight = self._in_flight

    def arrived(self, now: float, authorization: str | None, api: str) -> None:
        """Count a request.

        :param now: seconds of a monotonic clock.
        :param authorization: value of its Authorization header.
        :param api: API of the request; empty for none.
        """
        with self._lock:
            self._requests += 1
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            self._peak_per_second = max(self._peak_per_second, self._arrivals.add(now))
            if authorization is not None:
                # Each request of TIIA and COS has its own value; they would fill the memory.
                is_of_one_request = authorization.startswith(("TC3-", "q-sign-"))
                self._signatures.add(hash(authorization) if is_of_one_request else authorization)
            if api:
                self._by_api[api] += 1

    def finished(self) -> None:
        """Count the end of a request."""
        with self._lock:
            self._in_flight -= 1

    def answered(self, status: int, code: int | str | None) -> None:
        """Count an answer by HTTP status, and by business code if it has one."""
        with self._lock:
            self._by_status[status] += 1
            if code is not None:
                self._by_code[code] += 1

    def billed(self, image_id: str, api: str, calls: int) -> None:
        """Count the calls that a labelled image is billed as."""
        with self._lock:
            self._billed_images[image_id] += calls
            self._billed_by_api[api] += calls

    def refused(self, api: str) -> None:
        """Count a request answered with an error.

        :param api: API of the request; empty for none.
        """
        with self._lock:
            self._refused += 1
            if api:
                self._refused_by_api[api] += 1

    def over_limit(self) -> None:
        """Count a request refused for the quota."""
        with self._lock:
            self._over_limit += 1

    def dropped(self, billed_calls: int) -> None:
        """Count a connection closed without an answer, and its billed calls."""
        with self._lock:
            self._dropped += 1
            self._billed_dropped += billed_calls

    def downloaded(self) -> None:
        """Count the download of an object."""
        with self._lock:
            self._object_downloads += 1

    def garbage(self) -> None:
        """Count a garbage answer."""
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
                by_api=MappingProxyType(dict(self._by_api)),
                by_status=MappingProxyType(dict(self._by_status)),
                by_code=MappingProxyType(dict(self._by_code)),
                billed=self._billed_images.total(),
                billed_by_api=MappingProxyType(dict(self._billed_by_api)),
                billed_images=MappingProxyType(dict(self._billed_images)),
                refused=self._refused,
                refused_by_api=MappingProxyType(dict(self._refused_by_api)),
                over_limit=self._over_limit,
                dropped=self._dropped,
                billed_dropped=self._billed_dropped,
                garbage=self._garbage,
                in_flight=self._in_flight,
                max_in_flight=self._max_in_flight,
                peak_requests_per_second=self._peak_per_second,
                signatures_seen=len(self._signatures),
                rejected_signatures=self._rejected_signatures,
                object_downloads=self._object_downloads,
            )
