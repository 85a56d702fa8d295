"""The beginning of a run's entries, read before the run starts, to tell how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from airflow_imagetag.models import Entry, content_bytes

MAX_ENTRIES = 500
"""Maximum number of entries that are read ahead."""

MAX_BYTES = 4 * 1024 * 1024
"""Maximum size of the image bytes among them, but for those of the last entry."""


class Beginning:
    """Reads the first entries.

    :param entries: are read from here on only through ``entries``.
    """

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._rest = entries
        self._read: list[Entry] = []
        self.is_all = False
        size_bytes = 0
        while len(self._read) < MAX_ENTRIES and size_bytes < MAX_BYTES:
            entry = next(entries, None)
            if entry is None:
                self.is_all = True
                return
            self._read.append(entry)
            size_bytes += content_bytes(entry)

    def __len__(self) -> int:
        """Return the number of entries that were read."""
        return len(self._read)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries that were read, and keep them."""
        return iter(self._read)

    def entries(self) -> Iterator[Entry]:
        """Yield all entries; those that were read ahead are not kept."""
        read, self._read = self._read, []
        return chain(_emptied(read), self._rest)


def _emptied(entries: list[Entry]) -> Iterator[Entry]:
    entries.reverse()
    while entries:
        yield entries.pop()
