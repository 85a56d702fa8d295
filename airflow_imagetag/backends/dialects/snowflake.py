"""Private: Snowflake."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects.base import execute_at_connect
from airflow_imagetag.backends.dialects.warehouse import JsonWarehouse, kind_of

_SESSION = (
    "ALTER SESSION SET TIMEZONE = 'UTC', TIMESTAMP_OUTPUT_FORMAT = 'YYYY-MM-DD HH24:MI:SS.FF6'"
)

_CASTS = {
    "text": "CAST({} AS VARCHAR)",
    "whole": "CAST({} AS INTEGER)",
    "number": "CAST({} AS DOUBLE)",
    "time": "CAST(CAST({} AS VARCHAR) AS TIMESTAMP_TZ)",
}

_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "57"})
"""Classes of SQLSTATE: connection, rollback, resources, operator."""

_TRANSIENT_NUMBERS = frozenset({625, 604, 250001, 250003, 250006, 251011, 290402, 390114})
"""Statement cancelled or aborted, failed connections, and a token that expired."""


class Snowflake(JsonWarehouse):
    """Snowflake. Its keys are not enforced, so tables have none."""

    timeout = "ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = {seconds}"

    def prepare(self, engine: sa.Engine, *, busy_seconds: float) -> None:
        """Set the time zone and the style of times."""
        del busy_seconds
        execute_at_connect(engine, _SESSION)

    def is_transient_code(self, origin: Any) -> bool | None:
        """Tell by SQLSTATE and number whether an error may pass."""
        number, state = getattr(origin, "errno", None), getattr(origin, "sqlstate", None)
        if number in _TRANSIENT_NUMBERS:
            return True
        return None if not state else str(state)[:2] in _TRANSIENT_CLASSES

    def hash_of(self, text: Any) -> Any:
        """Return a number of a text."""
        return sa.func.abs(sa.func.mod(sa.func.hash(text), 2_147_483_647), type_=sa.BigInteger)

    def select_rows(self, table: sa.Table) -> str:
        """Return the query that takes the rows from JSON."""
        values = ", ".join(
            _CASTS[kind_of(column)].format(f"f.value['{column.name}']") for column in table.columns
        )
        return f"SELECT {values} FROM TABLE(FLATTEN(INPUT => PARSE_JSON(:rows))) AS f"
