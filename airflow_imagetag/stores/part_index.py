"""Private: a temporary index of the part that holds the latest row of each image.

A dataset may hold more images than memory, so the index is an SQLite file, removed with the run.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from airflow_imagetag.selection.rules import UNFINISHED, Status, StoredState
from airflow_imagetag.stores.open_store import UnlabelledCounts

_TABLE = """
CREATE TABLE image (
    api TEXT, key_sha256 TEXT, version TEXT, status TEXT, has_uri INTEGER,
    content_sha256 TEXT, written_at TEXT, batch TEXT, part TEXT, labels_batch TEXT,
    next_try_at TEXT, tries INTEGER, first_failed_at TEXT, is_missing INTEGER,
    PRIMARY KEY (api, key_sha256)
) WITHOUT ROWID
"""
_PUT = """
INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (api, key_sha256) DO UPDATE SET
    version = excluded.version, status = excluded.status, has_uri = excluded.has_uri,
    content_sha256 = excluded.content_sha256, written_at = excluded.written_at,
    batch = excluded.batch, part = excluded.part,
    labels_batch = CASE
        -- The labels of an earlier version stay, also if their writer did not know them.
        WHEN excluded.status NOT IN ('tagged', 'failed')
            AND excluded.labels_batch = excluded.batch THEN image.labels_batch
        ELSE excluded.labels_batch
    END,
    next_try_at = excluded.next_try_at, tries = excluded.tries,
    first_failed_at = excluded.first_failed_at,
    is_missing = excluded.is_missing
WHERE CASE
    WHEN excluded.status IN ('tagged', 'failed') AND image.status NOT IN ('tagged', 'failed')
        AND (excluded.version = image.version OR image.status = 'unfinished') THEN true
    WHEN excluded.status NOT IN ('tagged', 'failed') AND image.status IN ('tagged', 'failed')
        AND (excluded.version = image.version OR excluded.status = 'unfinished') THEN false
    ELSE (excluded.written_at, excluded.batch) >= (image.written_at, image.batch)
END
"""


class IndexRow(NamedTuple):
    """An image's row in a part of the dataset.

    :param written_at: time of the batch, as text that sorts by time.
    :param batch: name of its batch.
    :param part: name of the file that holds the row.
    :param labels_batch: name of the batch whose labels of the image count.
    :param next_try_at: time of the next try of a waiting image, as ISO text.
    :param tries: number of runs in which this version failed.
    :param first_failed_at: time when it failed first, as ISO text.
    :param is_missing: whether it has left its source.
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
    labels_batch: str
    next_try_at: str | None = None
    tries: int | None = None
    first_failed_at: str | None = None
    is_missing: bool = False


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
        self._database.execute(
            "CREATE INDEX unanswered ON image (api) WHERE status NOT IN ('tagged', 'failed')"
        )

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
        """Add rows; the latest row of an image stays.

        Whatever their order, an answer is preferred to a failure that may pass, for one version.
        """
        # The rows are read first: without a journal, an error in the middle cannot be rolled back.
        taken = list(rows)
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany(_PUT, taken)
            self._database.execute("COMMIT")

    def drop(self, parts: Iterable[str]) -> None:
        """Forget the images whose latest row is in one of these parts.

        :param parts: names of files that do not count any more.
        """
        names = json.dumps(list(parts))
        with self._lock:
            self._database.execute(
                "DELETE FROM image WHERE part IN (SELECT value FROM json_each(?))", (names,)
            )

    def stored(self, api: str, key_sha256: str) -> StoredState | None:
        """Return the state of an image; None if the dataset does not hold it."""
        with self._lock:
            row = self._database.execute(
                "SELECT version, status, has_uri, next_try_at, tries, first_failed_at"
                " FROM image WHERE api = ? AND key_sha256 = ?",
                (api, key_sha256),
            ).fetchone()
        if row is None:
            return None
        version, status, has_uri, next_try_at, tries, first_failed_at = row
        return StoredState(
            version,
            Status(status),
            bool(has_uri),
            _moment(next_try_at),
            tries or 0,
            _moment(first_failed_at),
        )

    def row(self, api: str, key_sha256: str) -> IndexRow | None:
        """Return the latest row of an image; None for an unknown image."""
        with self._lock:
            row = self._database.execute(
                "SELECT * FROM image WHERE api = ? AND key_sha256 = ?", (api, key_sha256)
            ).fetchone()
        return None if row is None else IndexRow(*row)

    def batches(self, api: str, key_sha256: str) -> tuple[str, str] | None:
        """Return the batches with the latest row and with the labels of an image that count."""
        with self._lock:
            row = self._database.execute(
                "SELECT batch, labels_batch FROM image WHERE api = ? AND key_sha256 = ?",
                (api, key_sha256),
            ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))

    def unknown_batches(self, batches: Iterable[str]) -> set[str]:
        """Return the batches that no image has its row or its labels from."""
        unknown = set(batches)
        if unknown:
            with self._lock:
                for column in ("batch", "labels_batch"):
                    found = self._database.execute(f"SELECT DISTINCT {column} FROM image")  # noqa: S608 (one of two names)
                    unknown.difference_update(name for (name,) in found)
        return unknown

    def unlabelled(self, api: str, now: datetime) -> UnlabelledCounts:
        """Return the number of images that wait or were given up."""
        now_text = utc_text(now)
        with self._lock:
            waiting, due, gave_up, next_try_at = self._database.execute(
                "SELECT count(*) FILTER (WHERE status <> 'gave_up'),"
                " count(*) FILTER (WHERE status <> 'gave_up'"
                " AND (next_try_at IS NULL OR next_try_at <= ?)),"
                " count(*) FILTER (WHERE status = 'gave_up'),"
                " min(next_try_at) FILTER (WHERE next_try_at > ?)"
                " FROM image WHERE status NOT IN ('tagged', 'failed') AND api = ?"
                " AND NOT is_missing",
                (now_text, now_text, api),
            ).fetchone()
        return UnlabelledCounts(waiting, due, gave_up, _moment(next_try_at))

    def settled_by_content(self, api: str, content_sha256: str) -> tuple[str, str] | None:
        """Return key digest and part of an image with these bytes and an answer; None for none."""
        with self._lock:
            row = self._database.execute(
                "SELECT key_sha256, part FROM image"
                " WHERE api = ? AND content_sha256 = ? AND status <> ?"
                # Labels before a failure, if equal bytes had both.
                " ORDER BY CASE status WHEN 'tagged' THEN 0 WHEN 'failed' THEN 2 ELSE 1 END"
                " LIMIT 1",
                (api, content_sha256, UNFINISHED),
            ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))


def utc_text(moment: datetime) -> str:
    """Return a time as text that sorts by time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
