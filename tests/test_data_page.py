"""The data dictionary, docs/data.md, has the columns, types and XComs of the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from test_docs import fill, rows_of, section, without_quota

from airflow_imagetag.backends.dialects import dialect_named
from airflow_imagetag.frames import FAILURE_COLUMNS, IMAGE_COLUMNS, RUN_COLUMNS, label_columns
from airflow_imagetag.operators.evaluate import ImageTagEvaluateOperator
from airflow_imagetag.operators.jobs import OUTLET_COUNTS
from airflow_imagetag.operators.sync import ImageTagSyncOperator
from airflow_imagetag.stores import ParquetLabelStore
from airflow_imagetag.stores.parquet_dataset import IMAGES, LABELS
from airflow_imagetag.stores.parquet_runs import RUNS
from airflow_imagetag.stores.sql_runs import runs_table
from airflow_imagetag.stores.sql_schema import tables
from airflow_imagetag.testing import Emulator

PAGE = "data.md"
SHORT = {"TIMESTAMP WITH TIME ZONE": "timestamptz", "FLOAT(53)": "double precision"}
"""PostgreSQL's own shorter names of types."""

IMAGES_TABLE, LABELS_TABLE = tables("labels", None)
RUNS_TABLE = runs_table("labels", None)


def on_postgresql(column: sa.Column[Any]) -> str:
    """Return the type of a column in PostgreSQL, as the page writes it."""
    text = column.type.compile(dialect=postgresql.dialect())
    return SHORT.get(text, text.lower())


@pytest.mark.parametrize(
    ("heading", "table", "schema", "columns"),
    [
        ("## Labels", LABELS_TABLE, LABELS, label_columns(originals=True)),
        ("## Images", IMAGES_TABLE, IMAGES, IMAGE_COLUMNS),
        ("## Runs", RUNS_TABLE, RUNS, RUN_COLUMNS),
    ],
    ids=["labels", "images", "runs"],
)
def test_every_column_of_a_store_has_its_types(
    heading: str, table: sa.Table, schema: pa.Schema, columns: Mapping[str, str]
) -> None:
    """SQL, files and frames have exactly the columns and types of the page."""
    rows = rows_of(section(PAGE, heading))
    in_sql = {
        column.name: on_postgresql(column) + ("" if column.nullable else ", not null")
        for column in table.columns
    }
    in_files = {field.name: str(field.type) for field in schema}
    for place, found in enumerate((in_sql, in_files, columns)):
        assert {name: cells[place] for name, cells in rows.items() if cells[place]} == found
    key = re.findall(r"`([^`]+)`", section(PAGE, heading).partition("Key: ")[2].partition(".")[0])
    assert key == [column.name for column in table.primary_key]


def test_every_column_of_the_failures_has_its_type() -> None:
    """The failures frame is the one of the code."""
    rows = rows_of(section(PAGE, "## Failures"))
    assert {name: cells[0] for name, cells in rows.items()} == FAILURE_COLUMNS


DIALECTS = {
    "mysql": ("sqlalchemy.dialects.mysql", "dialect"),
    "sqlite": ("sqlalchemy.dialects.sqlite", "dialect"),
    "duckdb": ("duckdb_engine", "Dialect"),
    "snowflake": ("snowflake.sqlalchemy", "dialect"),
    "bigquery": ("sqlalchemy_bigquery", "BigQueryDialect"),
    "redshift": ("sqlalchemy_redshift.dialect", "RedshiftDialect"),
    "databricks": ("databricks.sqlalchemy", "DatabricksDialect"),
    "trino": ("trino.sqlalchemy.dialect", "TrinoDialect"),
}
"""The dialect of each column of the page's table, in its order."""


@pytest.mark.parametrize("name", DIALECTS)
def test_types_of_each_database_are_those_that_tables_are_created_with(name: str) -> None:
    """The dialect writes each type of PostgreSQL as the page says."""
    module, attribute = DIALECTS[name]
    dialect = getattr(pytest.importorskip(module), attribute)()
    place = list(DIALECTS).index(name)
    rows = rows_of(section(PAGE, "## Types in other databases"))
    for table in (LABELS_TABLE, IMAGES_TABLE, RUNS_TABLE):
        for column in table.columns:
            shown = re.sub(r"varchar\(\d+\)", "varchar(n)", on_postgresql(column))
            kind = dialect_named(name).column_type(column)
            created = kind.compile(dialect=dialect).lower()
            length = getattr(column.type, "length", None) or "n"
            said = rows[shown][place].replace("varchar(n)", f"varchar({length})")
            assert created == said, column.name


class TaskInstance:
    """Takes XComs.

    :param pushed: the XComs by key.
    """

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Take an XCom."""
        self.pushed[key] = value


def xcoms_of(task: str) -> dict[str, str]:
    """Return the page's description of a task's XComs, by key."""
    found: dict[str, str] = {}
    name = ""
    for line in section(PAGE, "## XComs").splitlines():
        if not line.startswith("| ") or line.startswith("| task "):
            continue
        first, keys, said = line.strip("| ").split(" | ", 2)
        name = name if first.startswith("..") else first
        if f"`{task}`" in name:
            found.update(dict.fromkeys(re.findall(r"`([^`]+)`", keys), said))
    return found


def columns_of(frame: Any) -> list[str]:
    """Return the columns of a frame with their types, as the page writes them."""
    return [f"{name} {kind}" for name, kind in frame.dtypes.items()]


def columns_said(text: str) -> list[str]:
    """Return the columns of a text such as "`a`, `b` float64, `c` int64"."""
    found: list[str] = []
    waiting: list[str] = []
    for name, kind in re.findall(r"`(\w+)`(?: (string|float64|int64))?", text):
        waiting.append(name)
        if kind:
            found += [f"{one} {kind}" for one in waiting]
            waiting = []
    return found + waiting


def test_xcoms_of_the_other_operators_are_those_of_the_page(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, columns and counts of a comparison and of an evaluation."""
    without_quota(emulator, monkeypatch)
    store = ParquetLabelStore(f"{tmp_path}/lake")
    fill(store)
    synced, evaluated = TaskInstance(), TaskInstance()
    sync = ImageTagSyncOperator(
        task_id="sync",
        images=[{"image_key": "0", "image_uri": "x"}],
        store=store,
        max_missing_ratio=1,
    )
    context: Any = {"ti": synced}
    assert sync.execute(context) == synced.pushed["summary"]
    said = xcoms_of("ImageTagSyncOperator")
    assert set(said) == {"return_value", *synced.pushed}
    assert columns_said(said["summary"]) == list(synced.pushed["summary"])
    truth = [{"image_key": "0", "label": "Red"}, {"image_key": "1", "label": "Green"}]
    evaluate = ImageTagEvaluateOperator(
        task_id="evaluate", store=store, truth=truth, min_precision=0.5
    )
    context = {"ti": evaluated}
    labels = evaluate.execute(context)
    said = xcoms_of("ImageTagEvaluateOperator")
    assert set(said) == {"return_value", *evaluated.pushed}
    assert columns_said(said["return_value"]) == columns_of(labels)
    assert columns_said(said["confusions"]) == columns_of(evaluated.pushed["confusions"])
    thresholds = columns_of(evaluated.pushed["label_thresholds"])
    assert columns_said(said["label_thresholds"]) == thresholds
    assert columns_said(said["summary"]) == list(evaluated.pushed["summary"])


def test_counts_of_an_assets_event_are_those_of_the_page() -> None:
    """The sentence below the table names each of them."""
    after = section(PAGE, "## XComs").partition("The event of a store's asset")[2]
    assert columns_said(after.partition(" as its")[0]) == list(OUTLET_COUNTS)
