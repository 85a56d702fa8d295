"""Private: the key digests of a store in slices that a query manages in a short time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

LAST_DIGEST = "f" * 64
"""The last digest, in hex."""

FIRST_SHARE = 1_024
"""Number of equal slices that the digests would have if all were as large as the first."""

SHORT_SECONDS = 0.2
"""A slice that took less time is followed by one of twice its size."""

LONG_SECONDS = 0.6
"""A slice that took more time is followed by one of half its size."""


def slices(start: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator[tuple[str, str]]:
    """Yield slices of the digests, one behind the other, up to the last digest.

    Each is a digest that the slice begins behind, and its last one. The time until the next slice
    is asked for decides how large that is.

    :param start: the digest that the first slice begins behind; empty for the beginning.
    :param clock: returns seconds.
    """
    last = int(LAST_DIGEST, 16)
    size = last // FIRST_SHARE
    low, place = start, int(start or "0", 16)
    while low != LAST_DIGEST:
        place = min(place + size, last)
        high = f"{place:064x}"
        began = clock()
        yield low, high
        seconds = clock() - began
        low = high
        if seconds < SHORT_SECONDS:
            size *= 2
        elif seconds > LONG_SECONDS:
            size = max(size // 2, 1)
