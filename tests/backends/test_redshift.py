"""A store in Redshift, whose driver is PostgreSQL's, and a connection that does not name it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from databases import API, Database, tagged
from redshift_server import RedshiftServer, redshift_server

from airflow_imagetag.cli.main import main
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.rules import Rule
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.testing import Emulator

RESOLVER = "airflow.providers.amazon.aws.hooks.redshift_sql._resolve_postgres_drivername"


@pytest.fixture
def redshift(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedshiftServer]:
    """Give a server, and the connections ``warehouse`` and ``hidden`` of two types to it."""
    fields = json.loads(postgres.connection_json)
    with redshift_server(f"{fields['host']}/.s.PGSQL.5432") as server:
        fields |= {"host": "127.0.0.1", "port": server.port}
        for name, kind in (("WAREHOUSE", "redshift"), ("HIDDEN", "postgres")):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({**fields, "conn_type": kind}))
        yield server


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_store_in_redshift(
    driver: str, postgres: Database, redshift: RedshiftServer, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is sent that Redshift refuses, and no labelled image is new."""
    if driver == "psycopg" and sa.__version__.startswith("1."):
        pytest.skip("SQLAlchemy 1.4 does not know psycopg 3")
    monkeypatch.setattr(RESOLVER, lambda: f"postgresql+{driver}")
    postgres.script(
        "CREATE FUNCTION fnv_hash(text) RETURNS bigint LANGUAGE sql"
        " AS 'SELECT hashtextextended($1, 0)'"
    )
    postgres.script("CREATE TABLE products (id varchar(20), image_url varchar(99))")
    postgres.run(
        "INSERT INTO products VALUES (:id, 'https://x')", *({"id": f"k{n}"} for n in "123")
    )
    source = SqlImages("warehouse", table="products")
    store = SqlLabelStore("warehouse", "labels")
    for expected in (["k1", "k2", "k3"], ["k3"]):
        with store.open(API) as opened:
            opened.check_writable()
            condition = opened.condition(Rule())
            found = source.push_down.images(condition, window=None, limit=None)
            assert sorted(image.key for image in found) == expected
            opened.write([tagged("k1", "tabby"), tagged("k2", "moped")])
    [frame] = store.labels()
    assert sorted(frame["label"]) == ["moped", "tabby"]
    assert redshift.refused == []
    beginnings = [statement.partition("_stage_")[0] for statement in redshift.statements]
    assert beginnings.count("INSERT INTO labels_images") == 2
    assert any(statement.startswith("MERGE") for statement in redshift.statements)


def test_redshift_behind_a_connection_of_postgresql(redshift: RedshiftServer):
    """The first connect says which type the connection must have, and sends no statement."""
    wanted = "Connection 'hidden' .* Redshift.* type 'redshift'"
    with pytest.raises(ConfigurationError, match=wanted):
        list(SqlImages("hidden", table="products").entries())
    with pytest.raises(ConfigurationError, match=wanted), SqlLabelStore("hidden").open(API):
        pass
    assert redshift.statements == []


def test_the_doctor_names_the_type(
    redshift: RedshiftServer,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A quota in such a database is no server that is away."""
    connection = json.loads(emulator.connection_json)
    connection["extra"] |= {"quota_conn_id": "hidden", "requests_per_second": 5}
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    capsys.readouterr()
    assert main(["doctor", "--json"]) == 1
    checks = {one["check"]: one["found"] for one in json.loads(capsys.readouterr().out)}
    assert "type 'redshift'" in checks["quota server hidden"]
