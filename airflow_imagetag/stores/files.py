"""Private: list, read and write the Parquet files of a dataset on any storage."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_imagetag.backends.places import is_named_exactly, place_of
from airflow_imagetag.backends.storage_faults import storage_error
from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import is_local
from airflow_imagetag.stores.rows import LIFE_COLUMNS

SUFFIX = ".parquet"
UNFINISHED = ".unfinished"

KINDS = frozenset({"images", "labels", "runs"})
"""Folders of a store."""

LABELS_BATCH = "labels_batch"
"""Column of the batch with an image's labels, if it is not the batch of the image's row."""

ADDED_LATER = frozenset({ORIGINAL_LABEL, LABELS_BATCH, *LIFE_COLUMNS})
"""Columns that files of earlier versions do not have; they are read as null."""


class Files:
    """The folders ``images/`` and ``labels/`` of Parquet files below one path.

    :param path: the folder above them.
    :param conn_id: the storage's connection, if the path names none.
    :raises ConfigurationError: the path or its connection cannot be used.
    """

    def __init__(self, path: str, conn_id: str | None) -> None:
        folder = place_of(path, conn_id)
        self._fs = folder.file_system
        self.place = redact(path)
        self._root = folder.path.rstrip("/")
        self._is_local = is_local(path)
        if not is_named_exactly(replace(folder, path=f"{self._root}/labels/part")):
            raise ConfigurationError(
                f"{self.place} cannot be used: the storage's library reads a part of its name as "
                "the version of an object. Use a folder without '?' in its name."
            )

    def check(self) -> None:
        """Check that the bucket exists, before anything is paid for.

        :raises ConfigurationError: it does not.
        """
        bucket = self._root.partition("/")[0]
        if not self._is_local and not self._fs.exists(bucket):
            raise ConfigurationError(
                f"{self.place} cannot be used: there is no bucket {bucket}. Create it, or correct "
                "the path."
            )

    def check_writable(self) -> None:
        """Write a file and remove it.

        :raises ConfigurationError: the storage refuses the file.
        """
        name = f"probe-{uuid.uuid4().hex}{UNFINISHED}"
        path = f"{self._root}/images/{name}"
        try:
            if self._is_local:
                self._fs.makedirs(f"{self._root}/images", exist_ok=True)
            self._fs.pipe_file(path, b"probe")
            self._fs.rm_file(path)
        # Each storage's library has an error tree of its own.
        except Exception as error:
            raise ConfigurationError(
                f"{self.place} cannot be written to: {type(error).__name__}: "
                f"{redact_text(str(error))[:300]}"
            ) from None

    def hold_rows(self) -> bool:
        """Tell whether the folder has one of those that a store writes to.

        :raises ConfigurationError: the storage refuses the listing.
        :raises StorageError: the storage cannot be reached.
        """
        self._fs.invalidate_cache()
        try:
            with _foreign(self.place):
                paths = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return False
        return not KINDS.isdisjoint(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def names(self, kind: str) -> list[str]:
        """Return the names of the finished files, sorted.

        :raises ConfigurationError: the storage refuses the listing.
        :raises StorageError: the storage cannot be reached.
        """
        folder = f"{self._root}/{kind}"
        # Other writers add files that a remembered listing does not have.
        self._fs.invalidate_cache()
        try:
            with _foreign(self.place):
                paths = self._fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for path in paths if (name := path.rsplit("/", 1)[-1]).endswith(SUFFIX))

    def read(
        self, kind: str, name: str, schema: pa.Schema, rows: int, filters: Any = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of a file in pieces.

        :param rows: maximum number of rows in a piece.
        :param filters: conditions as pyarrow takes them.
        :raises FileNotFoundError: there is no such file.
        :raises ConfigurationError: the file does not belong to such a dataset.
        """
        path = f"{self._root}/{kind}/{name}"
        with _foreign(path), self._fs.open(path, "rb") as file:
            if filters is not None:
                yield pq.read_table(file, schema=schema, filters=filters)
                return
            part = pq.ParquetFile(file)
            missing = set(schema.names).difference(part.schema_arrow.names)
            if missing - ADDED_LATER:
                raise pa.ArrowInvalid(f"it has no column {', '.join(sorted(missing))}")
            names = [name for name in schema.names if name not in missing]
            for batch in part.iter_batches(batch_size=rows, columns=names):
                table = pa.Table.from_batches([batch])
                for name in sorted(missing):
                    field = schema.field(name)
                    table = table.append_column(field, pa.nulls(len(table), field.type))
                yield table

    def footer_list(self, kind: str, name: str, key: bytes) -> list[str]:
        """Return a list of texts from the footer of a file; an empty list if it has none.

        :raises FileNotFoundError: there is no such file.
        :raises ConfigurationError: the file does not belong to such a dataset.
        """
        path = f"{self._root}/{kind}/{name}"
        with _foreign(path), self._fs.open(path, "rb") as file:
            metadata = pq.read_metadata(file).metadata or {}
            return list(json.loads(metadata.get(key, b"[]")))

    def write(self, kind: str, name: str, table: pa.Table) -> None:
        """Write a file of one table."""
        self.write_all(kind, name, table.schema, iter([table]))

    def write_all(
        self, kind: str, name: str, schema: pa.Schema, tables: Iterator[pa.Table]
    ) -> None:
        """Write a file piece by piece; readers see it only when it is whole."""
        path = f"{self._root}/{kind}/{name}"
        # On the worker's disk first: an exception closes a file of fsspec, which then uploads the
        # part that was written.
        with tempfile.TemporaryDirectory(prefix="imagetag-part-") as folder:
            made = f"{folder}/part"
            with pq.ParquetWriter(made, schema) as writer:
                for table in tables:
                    writer.write_table(table)
            if not self._is_local:
                self._fs.put_file(made, path)
                return
            # An object storage shows an object when its upload ends; a disk shows a growing file.
            self._fs.makedirs(f"{self._root}/{kind}", exist_ok=True)
            self._fs.put_file(made, path + UNFINISHED)
            self._fs.mv(path + UNFINISHED, path)

    def remove(self, kind: str, name: str) -> None:
        """Remove a file."""
        self._fs.rm_file(f"{self._root}/{kind}/{name}")


@contextmanager
def _foreign(path: str) -> Iterator[None]:
    """Raise our own errors for those of the storage and of pyarrow, except for a missing file."""
    try:
        yield
    except (FileNotFoundError, ImageTagError):
        raise
    except (NotADirectoryError, PermissionError) as error:
        raise ConfigurationError(
            f"{redact(path)} cannot be read: {type(error).__name__}: {redact_text(str(error))}"
        ) from None
    except pa.ArrowInvalid as error:
        raise ConfigurationError(
            f"{redact(path)} does not belong to a dataset of labels: {error}. Move it elsewhere, "
            "or give the dataset a folder of its own."
        ) from None
    # Each storage's library has an error tree of its own.
    except Exception as error:
        raise storage_error(error, f"{redact(path)} cannot be read") from None
