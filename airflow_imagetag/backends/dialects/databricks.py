"""Private: Databricks SQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects.warehouse import JsonWarehouse, kind_of

_TYPES = {"text": "STRING", "whole": "INT", "number": "DOUBLE", "time": "STRING"}

_TRANSIENT = ("DELTA_CONCURRENT", "TEMPORARILY_UNAVAILABLE", "Max retries exceeded", "RequestError")
"""Parts of messages: the driver's errors have no codes."""


class Databricks(JsonWarehouse):
    """Databricks. Tables are Delta tables, clustered by the keys that batches replace."""

    # Each statement takes effect by itself.
    has_transactions = False
    stage_prefixes = ()
    timeout = "SET STATEMENT_TIMEOUT = {seconds}"
    # Parameters of one statement: 256 at most.
    lookup_keys = 200

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by the class and the message whether an error may pass."""
        text = f"{type(origin).__name__}: {origin}"
        return True if any(part in text for part in _TRANSIENT) else None

    def is_blank(self, text: Any) -> Any:
        """Return the condition that a text is NULL, empty, or holds nothing but spaces."""
        return text.is_(None) | (sa.func.trim(self.text_of(text)) == "")

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        return sa.func.abs(sa.func.mod(sa.func.xxhash64(text), 2_147_483_647))

    def create_table(self, table: sa.Table) -> Any:
        """Return the statement that creates a table unless it exists."""
        options: dict[str, Any] = {}
        if "key_sha256" in {column.name for column in table.columns}:
            options = {"databricks_cluster_by": ["api", "key_sha256"]}
        plain = self.plain_table(table, None, **options)
        return sa.schema.CreateTable(plain, if_not_exists=True)

    def select_rows(self, table: sa.Table) -> str:
        """Return the query that takes the rows from JSON."""
        fields = ", ".join(f"`{one.name}`: {_TYPES[kind_of(one)]}" for one in table.columns)
        values = ", ".join(
            f"to_timestamp(r.`{one.name}`)" if kind_of(one) == "time" else f"r.`{one.name}`"
            for one in table.columns
        )
        return (
            f"SELECT {values} FROM"
            f" (SELECT explode(from_json(:rows, 'ARRAY<STRUCT<{fields}>>')) AS r) AS given"
        )
