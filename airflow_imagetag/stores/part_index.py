"""Private: a temporary index of the part that holds the latest row of each image.

A dataset may hold more images than memory, so the index is an SQLite file, removed with the run.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from airflow_imagetag.selection.rules import Status, StoredState

_TABLE = """
CREATE TABLE image (
    api TEXT, key_sha256 TEXT, version TEXT, status TEXT, has_uri INTEGER,
    content_sha256 TEXT, written_at TEXT, batch TEXT, part TEXT,
    PRIMARY KEY (api, key_sha256)
) WITHOUT ROWID
"""
_PUT = """
INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (api, key_sha256) DO UPDATE SET
    version = excluded.version, status = excluded.status, has_uri = excluded.has_uri,
    content_sha256 = excluded.content_sha256, written_at = excluded.written_at,
    batch = excluded.batch, part = excluded.part
WHERE (excluded.status <> 'unfinished' OR image.status = 'unfinished')
  AND ((excluded.written_at, excluded.batch) >= (image.written_at, image.batch)
       OR (image.status = 'unfinished' AND excluded.status <> 'unfinished'))
"""


class IndexRow(NamedTuple):
    """An image's row in a part of the dataset.

    :param written_at: time of the batch, as text that sorts by time.
    :param batch: name of its batch; the image's labels in the same batch count.
    :param part: name of the file that holds the row.
    """

    api: str
    key_sha256: str
    version: str
    status: str
    has_uri: bool
    content_sha256: str | None
    written_at: str
    batch: str
    part: str


class PartIndex:
    """The latest row of each image; safe for several threads."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="imagetag-index-")
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            Path(self._folder.name) / "index.db", check_same_thread=False, isolation_level=None
        )
        # The file is removed after the run, so it need not survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(_TABLE)
        self._database.execute("CREATE INDEX by_content ON image (content_sha256)")
        self._database.execute("CREATE INDEX by_time ON image (written_at)")

    def later_than_all(self, now: datetime) -> datetime:
        """Return the time, or a later one if another writer's clock runs ahead of this one.

        The next batch must be later than every batch that was written before.
        """
        with self._lock:
            row = self._database.execute("SELECT max(written_at) FROM image").fetchone()
        if row is None or row[0] is None:
            return now
        return max(now, datetime.fromisoformat(row[0]) + timedelta(microseconds=1))

    def close(self) -> None:
        """Remove the index."""
        self._database.close()
        self._folder.cleanup()

    def put(self, rows: Iterable[IndexRow]) -> None:
        """Add rows; the latest row of an image stays, and an unfinished one replaces no answer."""
        # The rows are read first: without a journal, an error in the middle cannot be rolled back.
        taken = list(rows)
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany(_PUT, taken)
            self._database.execute("COMMIT")

    def stored(self, api: str, key_sha256: str) -> StoredState | None:
        """Return the state of an image; None if the dataset does not hold it."""
        with self._lock:
            row = self._database.execute(
                "SELECT version, status, has_uri FROM image WHERE api = ? AND key_sha256 = ?",
                (api, key_sha256),
            ).fetchone()
        return None if row is None else StoredState(row[0], Status(row[1]), bool(row[2]))

    def batch(self, api: str, key_sha256: str) -> str | None:
        """Return the batch that has the latest rows of an image; None for an unknown image."""
        with self._lock:
            row = self._database.execute(
                "SELECT batch FROM image WHERE api = ? AND key_sha256 = ?", (api, key_sha256)
            ).fetchone()
        return None if row is None else str(row[0])

    def settled_by_content(self, api: str, content_sha256: str) -> tuple[str, str] | None:
        """Return key digest and part of an image with these bytes and an answer; None for none."""
        with self._lock:
            row = self._database.execute(
                "SELECT key_sha256, part FROM image"
                " WHERE api = ? AND content_sha256 = ? AND status <> 'unfinished'"
                # Labels before a failure, if equal bytes had both.
                " ORDER BY status DESC LIMIT 1",
                (api, content_sha256),
            ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))
