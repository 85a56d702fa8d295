"""Private: images that a database table or query lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.sources.base import ImageSource

if TYPE_CHECKING:
    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.models import Entry, Image
    from airflow_imagetag.selection.rules import Condition, Window
    from airflow_imagetag.selection.shards import Shard
    from airflow_imagetag.sources.sql_reader import SqlReader


@dataclass(repr=False)
class SqlImages(ImageSource):
    """Images that a table or a query of any SQL database lists, one row for each.

    Rows are read in pages by key, never the whole table, and no transaction stays open between
    pages. Rows without a key or a URI, and rows that share a key, are reported in the failures and
    do not stop the run; of rows that share a key the one with the greatest version is taken.

    :param conn_id: an Airflow connection whose hook is one of ``common.sql``. (templated)
    :param table: the table: ``table`` or ``schema.table``, with double quotes around a part with
        special characters. (templated)
    :param sql: in place of a table, one SELECT statement that gives the columns below. (templated)
    :param key: column that names an image; its text is the ``image_key`` of the outputs. A table
        should have an index on it.
    :param uri: column of the image's URL, object-storage URI or path.
    :param content: in place of ``uri``, column of the image's bytes.
    :param version: column that changes when the image behind the key changes, such as
        ``updated_at``; without it an image is labelled once.
    """

    conn_id: str
    table: str | None = field(default=None, kw_only=True)
    sql: str | None = field(default=None, kw_only=True)
    key: str = field(default="id", kw_only=True)
    uri: str | None = field(default="image_url", kw_only=True)
    content: str | None = field(default=None, kw_only=True)
    version: str | None = field(default=None, kw_only=True)

    template_fields: ClassVar[Sequence[str]] = ("conn_id", "table", "sql")

    def __post_init__(self) -> None:
        if (self.table is None) == (self.sql is None):
            raise ConfigurationError("SqlImages takes one of table and sql.")
        if self.content is not None:
            self.uri = None
        elif self.uri is None:
            raise ConfigurationError(
                "SqlImages takes one of uri and content, the name of a column."
            )

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield the images in the order of their keys.

        :param shard: only the images of this part; the database selects them.
        :param limit: maximum number of images that the caller takes.
        :raises ConfigurationError: the connection, table, query or a column is wrong.
        """
        return self._read(shard=shard, limit=limit).entries()

    def images(self, *, limit: int | None = None, window: Window | None = None) -> Iterator[Image]:
        """Yield the rows that hold an image, in the order of their keys, without the bytes.

        :param limit: maximum number of images that the caller takes.
        :param window: only rows whose ``version``, a column of timestamps or dates, lies in it.
        :raises ConfigurationError: the connection, table, query or a column is wrong.
        :raises StorageError: the database cannot be reached.
        """
        return self._read(limit=limit).images(window)

    def keys(self) -> Iterator[str]:
        """Yield the keys of all rows, without their bytes.

        :raises ConfigurationError: the connection, table, query or a column is wrong.
        :raises StorageError: the database cannot be reached.
        """
        return self._read().keys()

    @property
    def server_name(self) -> str:
        """Id of the connection."""
        return self.conn_id

    @property
    def push_down(self) -> SqlPushDown:
        """The database of the connection can compare the rows with a store of its own."""
        return SqlPushDown(self)

    def dataset_refs(self) -> Sequence[DatasetRef]:
        """Return the table with its columns, or the query."""
        from airflow_imagetag.adapters import dataset_refs as refs

        if self.table is None:
            return [refs.QueryRef(self.conn_id, self.sql or "")]
        columns = {
            refs.KEY: self.key,
            refs.URI: self.uri,
            refs.CONTENT: self.content,
            refs.VERSION: self.version,
        }
        named = {kind: column for kind, column in columns.items() if column is not None}
        return [refs.TableRef(self.conn_id, self.table, columns=named)]

    def _read(
        self,
        *,
        shard: Shard | None = None,
        limit: int | None = None,
        condition: Condition | None = None,
    ) -> SqlReader:
        from airflow_imagetag.sources.sql_reader import SqlReader

        return SqlReader(self, shard=shard, limit=limit, condition=condition)


@dataclass(frozen=True, slots=True)
class SqlPushDown:
    """Reads a source with a condition that its database applies.

    :param source: the table or query.
    """

    source: SqlImages

    @property
    def database(self) -> str:
        """Id of the source's connection."""
        return self.source.conn_id

    def entries(
        self, condition: Condition, *, shard: Shard | None, limit: int | None
    ) -> Iterator[Entry]:
        """Yield the entries that meet the condition."""
        return self.source._read(shard=shard, limit=limit, condition=condition).entries()

    def count(self, condition: Condition, *, shard: Shard | None) -> int:
        """Return the number of entries with a key that meet the condition."""
        return self.source._read(shard=shard, condition=condition).count()

    def images(
        self, condition: Condition, *, window: Window | None, limit: int | None
    ) -> Iterator[Image]:
        """Yield the images that meet the condition, without their bytes."""
        return self.source._read(limit=limit, condition=condition).images(window)
