"""Private: ClickHouse, from which images are read."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects.warehouse import Row, Warehouse
from airflow_imagetag.safety.uris import BLANKS


class ClickHouse(Warehouse):
    """ClickHouse. It has no statement that replaces rows, so no store can be in it."""

    def lacks(self, engine: sa.Engine) -> str | None:
        """Return the statement that a store needs and ClickHouse does not have."""
        del engine
        return (
            "a statement that replaces rows which exist. Keep the labels in another store, such as "
            "ParquetLabelStore, and read its files with the table function s3()"
        )

    def text_of(self, column: Any) -> Any:
        """Return the text of a column's values."""
        return sa.func.toString(column)

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but blanks."""
        return text.is_(None) | (sa.func.trimBoth(self.text_of(text), BLANKS) == "")

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        return sa.func.cityHash64(text, type_=sa.BigInteger)

    def append(self, connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
        """Raise: there is no store in it."""
        raise NotImplementedError
