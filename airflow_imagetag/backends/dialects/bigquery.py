"""Private: BigQuery."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.dialects.warehouse import JsonWarehouse, kind_of

STAGE_HOURS = 6
"""How long a staging table lives that a killed task has left."""

_CASTS = {
    "text": "{}",
    "whole": "CAST({} AS INT64)",
    "number": "CAST({} AS FLOAT64)",
    "time": "TIMESTAMP({})",
}

_TRANSIENT_STATUS = frozenset({409, 429, 500, 502, 503, 504})

_TRANSIENT_REASONS = frozenset(
    {
        "backendError",
        "internalError",
        "jobBackendError",
        "jobRateLimitExceeded",
        "rateLimitExceeded",
    }
)

_CONCURRENT = "due to concurrent update"
"""The code of such an error is that of a wrong statement."""


class BigQuery(JsonWarehouse):
    """BigQuery. A schema is a dataset; tables are clustered by the keys that batches replace."""

    # Without a session, each statement takes effect by itself.
    has_transactions = False
    stage_prefixes = ()
    batch_bytes = 5_000_000

    def is_transient(self, error: sa_exc.DBAPIError) -> bool:
        """Tell by status and reason whether an error may pass."""
        origin: Any = error.orig
        cause: Any = next(iter(getattr(origin, "args", ())), None)
        code = getattr(cause, "code", getattr(origin, "code", None))
        reasons = {one.get("reason") for one in getattr(cause, "errors", None) or ()}
        if code in _TRANSIENT_STATUS or reasons & _TRANSIENT_REASONS:
            return True
        return error.connection_invalidated or _CONCURRENT in str(origin)

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        return sa.func.abs(sa.func.mod(sa.func.farm_fingerprint(text), 2_147_483_647))

    def create_table(self, table: sa.Table) -> Any:
        """Return the statement that creates a table unless it exists."""
        options: dict[str, Any] = {}
        if "key_sha256" in {column.name for column in table.columns}:
            options = {"bigquery_clustering_fields": ["api", "key_sha256"]}
        plain = self.plain_table(table, None, **options)
        return sa.schema.CreateTable(plain, if_not_exists=True)

    def stage_options(self) -> dict[str, Any]:
        """Return the option that ends the staging table of a killed task."""
        ends_at = datetime.now(UTC) + timedelta(hours=STAGE_HOURS)
        return {"bigquery_expiration_timestamp": ends_at}

    def select_rows(self, table: sa.Table) -> str:
        """Return the query that takes the rows from JSON."""
        values = ", ".join(
            _CASTS[kind_of(column)].format(f"JSON_VALUE(r, '$.{column.name}')")
            for column in table.columns
        )
        return f"SELECT {values} FROM UNNEST(JSON_QUERY_ARRAY(:rows)) AS r"
