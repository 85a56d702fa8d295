"""Engines of one connection share a dialect and no connection."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
import sqlalchemy as sa
from databases import (  # noqa: F401 (fixtures)
    Database,
    database_fixture,
    postgres_fixture,
    sqlite_fixture,
)
from sqlalchemy import event

from airflow_imagetag.backends.databases import engine_of
from airflow_imagetag.backends.engine_cache import EngineCache


def connect(engine: sa.engine.Engine) -> None:
    """Connect once."""
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1


def test_engines_share_a_dialect_and_statements(database: Database):
    """Later engines of a connection have the dialect of the first one that has connected."""
    first = engine_of("warehouse")
    assert engine_of("warehouse").dialect is not first.dialect
    connect(first)
    second = engine_of("warehouse")
    assert second.dialect is first.dialect
    connect(second)
    first.dispose()
    second.dispose()


def test_engines_share_no_connection(database: Database):
    """Disposing one engine closes its own connections and no others."""
    opened: list[Any] = []
    closed: list[Any] = []
    first = engine_of("warehouse")
    event.listen(first, "connect", lambda connection, _: opened.append(connection))
    event.listen(first, "close", lambda connection, _: closed.append(connection))
    connect(first)
    second = engine_of("warehouse")
    third = engine_of("warehouse")
    with third.connect() as held:
        connect(second)
        second.dispose()
        assert opened[1] not in closed
        assert held.execute(sa.text("SELECT 1")).scalar_one() == 1
    first.dispose()
    third.dispose()
    assert len(opened) == 3
    assert set(map(id, closed)) == set(map(id, opened))


def test_sessions_of_every_engine_are_prepared(database: Database):
    """Each connection of each engine has the session that the first engine prepares."""
    for _ in range(3):
        engine = engine_of("warehouse")
        with engine.connect() as connection:
            if database.is_postgres:
                assert connection.execute(sa.text("SHOW TIME ZONE")).scalar_one() == "UTC"
            else:
                hashed = connection.execute(sa.text("SELECT imagetag_hash('a')")).scalar_one()
                assert isinstance(hashed, int)
        engine.dispose()


def test_a_changed_connection_has_an_engine_of_its_own(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
):
    """A connection that is corrected while a trigger waits takes effect at once."""
    first = engine_of("warehouse")
    connect(first)
    fields = json.loads(sqlite.connection_json)
    other = fields | {"host": fields["host"] + ".other"}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(other))
    second = engine_of("warehouse")
    assert second.dialect is not first.dialect
    assert str(second.url) != str(first.url)
    first.dispose()


def test_a_dialect_is_not_shared_for_long():
    """A hook may give its engine a token that expires."""
    now = 0.0
    cache = EngineCache(max_age_seconds=100.0, clock=lambda: now)

    def dialect() -> Any:
        engine = cache.engine("key", lambda: sa.create_engine("sqlite://", future=True))
        connect(engine)
        return engine.dialect

    first = dialect()
    now = 99.0
    assert dialect() is first
    now = 101.0
    second = dialect()
    assert second is not first
    # Later connections of an old engine do not renew it.
    now = 150.0
    assert dialect() is second


def test_engines_of_a_connection_leave_nothing_behind(postgres: Database):
    """The number of objects does not grow with the number of engines."""

    def use() -> int:
        engine = engine_of("warehouse")
        assert sa.inspect(engine).get_columns("products")
        engine.dispose()
        gc.collect()
        return len(gc.get_objects())

    postgres.run("CREATE TABLE products (id text PRIMARY KEY)")
    use()
    before = use()
    for _ in range(5):
        after = use()
    assert after - before < 100
