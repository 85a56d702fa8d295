"""Private: Trino, with a connector whose tables take MERGE, such as Iceberg or Delta Lake."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects.warehouse import JsonWarehouse, kind_of

_TYPES = {"text": "VARCHAR", "whole": "INTEGER", "number": "DOUBLE", "time": "VARCHAR"}

_TRANSIENT_TYPES = frozenset({"INTERNAL_ERROR", "INSUFFICIENT_RESOURCES", "EXTERNAL"})


class Trino(JsonWarehouse):
    """Trino. A schema may name its catalog, too: ``catalog.schema``."""

    # Connectors take effect statement by statement.
    has_transactions = False
    stage_prefixes = ()
    timeout = "SET SESSION query_max_run_time = '{seconds}s'"

    @property
    def time_type(self) -> Any:
        """The type of a point in time with microseconds."""
        from trino.sqlalchemy import datatype

        kind: Any = datatype.TIMESTAMP
        return kind(precision=6, timezone=True)

    def column_type(self, column: sa.Column[Any]) -> Any:
        """Return the type of a column; connectors such as Iceberg have texts of any length only."""
        return self.text_type if isinstance(column.type, sa.String) else super().column_type(column)

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by the type of an error whether it may pass."""
        found = getattr(origin, "error_type", None)
        return None if found is None else found in _TRANSIENT_TYPES

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but spaces."""
        return text.is_(None) | (sa.func.trim(self.text_of(text)) == "")

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        number = sa.func.from_big_endian_64(sa.func.xxhash64(sa.func.to_utf8(text)))
        return sa.func.abs(sa.func.mod(number, 2_147_483_647))

    def select_rows(self, table: sa.Table) -> str:
        """Return the query that takes the rows from JSON."""
        names = [f'"{column.name}"' for column in table.columns]
        kinds = [kind_of(column) for column in table.columns]
        fields = ", ".join(
            f"{name} {_TYPES[kind]}" for name, kind in zip(names, kinds, strict=True)
        )
        values = ", ".join(
            f"CAST(from_iso8601_timestamp_nanos(r.{name}) AS TIMESTAMP(6) WITH TIME ZONE)"
            if kind == "time"
            else f"r.{name}"
            for name, kind in zip(names, kinds, strict=True)
        )
        return (
            f"SELECT {values} FROM UNNEST(CAST(json_parse(:rows) AS ARRAY(ROW({fields}))))"
            f" AS r ({', '.join(names)})"
        )
