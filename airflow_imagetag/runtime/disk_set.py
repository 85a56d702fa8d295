"""A set that may be larger than memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from types import TracebackType

CACHE_KIBIBYTES = 32 * 1024
"""Size of the part that is held in memory."""

CHUNK_VALUES = 500
"""Number of values in one statement; SQLite before 3.32 takes 999 parameters."""

ADDED_VALUES = 20_000
"""Number of values that are added in one transaction."""


class DiskSet:
    """A set of short byte strings in a temporary file, which ends with the process.

    Use it as a context; one thread uses it at a time.
    """

    def __init__(self) -> None:
        # An empty name makes a temporary database: in memory as long as it is small, and then in a
        # file without a name.
        self._database = sqlite3.connect("", isolation_level=None)
        # The file need not survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
        self._database.execute("CREATE TABLE item (value BLOB PRIMARY KEY) WITHOUT ROWID")

    def __enter__(self) -> DiskSet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()

    def __len__(self) -> int:
        [count] = self._database.execute("SELECT count(*) FROM item").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the values, sorted."""
        return (bytes(value) for [value] in self._database.execute("SELECT value FROM item"))

    def update(self, values: Iterable[bytes]) -> None:
        """Add values; those that are there already change nothing."""
        iterator = iter(values)
        while chunk := [(value,) for value in islice(iterator, ADDED_VALUES)]:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO item VALUES (?)", chunk)
            self._database.execute("COMMIT")

    def intersection(self, values: Collection[bytes]) -> set[bytes]:
        """Return those of the values that the set holds."""
        found: set[bytes] = set()
        iterator = iter(values)
        while chunk := list(islice(iterator, CHUNK_VALUES)):
            places = ", ".join("?" * len(chunk))
            statement = f"SELECT value FROM item WHERE value IN ({places})"  # noqa: S608 (marks of parameters)
            found.update(bytes(value) for [value] in self._database.execute(statement, chunk))
        return found
