"""Private: Airflow's own database, where a connection that the command needs was not found."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_imagetag.errors import ImageTagError

LOOK_UP = "airflow.models.connection"
"""The logger that writes a traceback for each place of connections that cannot be read."""


def fault_of_database() -> str | None:
    """Return why Airflow's database has no connections, and the remedy; None if it has a table."""
    import sqlalchemy as sa

    from airflow_imagetag.adapters.airflow_sdk import conf
    from airflow_imagetag.backends.databases import reason_of
    from airflow_imagetag.safety.redaction import redact_text

    url = conf.get("database", "sql_alchemy_conn", fallback="") or ""
    schema = conf.get("database", "sql_alchemy_schema", fallback="") or None
    try:
        engine = sa.create_engine(url)
        try:
            has_table = sa.inspect(engine).has_table("connection", schema=schema)
        finally:
            engine.dispose()
    # A driver may be missing, or the URL wrong.
    except Exception as error:
        reason = redact_text(f"{type(error).__name__}: {reason_of(error)}")
        return f"Airflow's database cannot be read: {reason}."
    if has_table:
        return None
    return (
        "Airflow's database has no tables: is AIRFLOW_HOME set as before? Otherwise run airflow "
        "db migrate."
    )


def message_of(error: ImageTagError) -> str:
    """Return an error's message; that of a missing connection after the fault of the database."""
    from airflow_imagetag.errors import UnknownConnectionError

    fault = fault_of_database() if isinstance(error, UnknownConnectionError) else None
    return " ".join(filter(None, (fault, error.message)))


@contextmanager
def quiet_look_ups() -> Iterator[None]:
    """Write no traceback of a look-up: the command says in a line what is missing."""
    log = logging.getLogger(LOOK_UP)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
