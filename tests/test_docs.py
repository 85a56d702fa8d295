"""README and docs agree with the code: examples run, lists are complete, links work.

An HTML comment right above a block says how it is tested::

    <!-- test: not run, needs Spark -->         read (Python: compiled), but not run
    <!-- test: run on sqlite, postgresql -->    SQL: run there, against a store that was filled
    <!-- test: parsed as redshift -->           SQL: not run, but a parser of that database knows it
    <!-- test: on Airflow 3 -->                 Python: on Airflow 2.11 only compiled

Each block of Python runs in its own namespace, in a folder with photographs, against the emulator
and a warehouse of SQLite. The service of the page on adding one is installed.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import dis
import importlib
import io
import json
import math
import os
import re
import runpy
import subprocess
import sys
import types
import warnings
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any

import airflow
import pytest
import toy_service
from databases import failed

from airflow_imagetag import errors
from airflow_imagetag.assets import announced_images
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.frames import FAILURE_COLUMNS, LABEL_COLUMNS, RUN_COLUMNS
from airflow_imagetag.get_provider_info import get_provider_info
from airflow_imagetag.operators.evaluate import ImageTagEvaluateOperator
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.jobs import OUTLET_COUNTS
from airflow_imagetag.operators.sync import ImageTagSyncOperator
from airflow_imagetag.selection.rules import Retag, Status
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import (
    DeltaLabelStore,
    ParquetLabelStore,
    RunOutcome,
    SqlLabelStore,
)
from airflow_imagetag.testing import Emulator
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.ui.shown_stores import parse_stores

AIRFLOW_2 = airflow.__version__.startswith("2.")
ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in str(path)),
]
MARK = re.compile(
    r"<!-- test: (not run, (?P<reason>.+)|run on (?P<places>.+)|(?P<airflow>on Airflow 3)"
    r"|parsed as (?P<parser>\w+)) -->"
)
PUBLIC_MODULES = (
    "assets",
    "decorators.imagetag",
    "errors",
    "frames",
    "models",
    "pending",
    "services",
    "sources",
    "stores",
    "testing",
)
FENCE = re.compile(
    r"^(?P<fence>```+)(?P<language>[a-z]+)\n(?P<code>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    reason: str | None
    places: tuple[str, ...]
    needs_airflow_3: bool
    parser: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """Return the blocks of all pages in one language."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            above = text[: match.start()].rstrip("\n").rsplit("\n", 1)[-1]
            mark = MARK.fullmatch(above)
            places = mark["places"].split(", ") if mark and mark["places"] else ()
            line = text[: match.start()].count("\n") + 2
            reason = mark["reason"] if mark else None
            airflow_3 = bool(mark and mark["airflow"])
            parser = mark["parser"] if mark else None
            kind = (match["language"], match["code"])
            found.append(Block(page, line, *kind, reason, tuple(places), airflow_3, parser))
    return [block for block in found if block.language == language]


def test_every_mark_is_understood_and_belongs_to_a_block():
    """A misspelt mark would switch a test off in silence."""
    marks = sum(page.read_text().count("<!-- test:") for page in PAGES)
    languages = ("python", "sql")
    used = [block for language in languages for block in blocks(language)]
    assert marks == sum(
        bool(block.reason or block.places or block.needs_airflow_3 or block.parser)
        for block in used
    )


def without_quota(emulator: Emulator, patch: pytest.MonkeyPatch) -> None:
    """Make the emulator the connection ``imagetag_default``, without a quota."""
    connection = json.loads(emulator.connection_json)
    connection["extra"]["requests_per_second"] = 0
    patch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))


# --- Python


@pytest.fixture
def surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, emulator: Emulator, photographs: list[Path]
) -> Path:
    """Make the surroundings of an example: photographs, services, a warehouse for labels."""
    without_quota(emulator, monkeypatch)
    toy_service.install(tmp_path, monkeypatch)
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(photographs[:2]):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "photo.jpg").write_bytes(photographs[0].read_bytes())
    warehouse = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_this_place(code: str, folder: Path) -> str:
    """Return an example for the installed Airflow, with its dataset in a folder."""
    if AIRFLOW_2:
        code = code.replace(
            "from airflow.sdk import", "from airflow.providers.common.compat.sdk import"
        )
    return re.sub(r"s3://(aws_default@)?lake/labels", f"{folder}/lake", code)


def undefined_names(code: types.CodeType, known: set[str]) -> set[str]:
    """Return the names that the code of a module or function uses without a definition."""
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    found = {name for name in names if isinstance(name, str)} - known - set(dir(builtins))
    return found.union(*(undefined_names(code, known) for code in inner))


def with_named_dags(code: str) -> ast.Module:
    """Return an example in which ``with DAG(...)`` gives the DAG a name."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if not isinstance(node, ast.With):
            continue
        opened = node.items[0]
        if getattr(getattr(opened.context_expr, "func", None), "id", None) == "DAG":
            opened.optional_vars = ast.Name("dag_of_the_page", ast.Store())
    return ast.fix_missing_locations(tree)


def part_of(text: str, pattern: str) -> str:
    """Return the group of a pattern that a text has; a dot of the pattern matches any character."""
    found = re.search(pattern, text, re.DOTALL)
    assert found is not None, pattern
    return found[1]


def serialized(dag: Any) -> dict[str, Any]:
    """Return a DAG as Airflow's parser keeps it."""
    import airflow.serialization.serialized_objects as objects

    is_new = hasattr(objects, "DagSerialization")
    serializer: Any = getattr(objects, "DagSerialization" if is_new else "SerializedDAG")
    document: dict[str, Any] = serializer.to_dict(dag)
    return document


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_block_runs(block, surroundings, emulator, monkeypatch):
    """An example runs unchanged; bodies of functions know their names, DAGs can be scheduled."""
    code = in_this_place(block.code, surroundings)
    compiled = compile(with_named_dags(code), str(block), "exec")
    if block.reason or (block.needs_airflow_3 and AIRFLOW_2):
        return
    if "DeltaLabelStore" in code:
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
    has_dag = "with DAG(" in code
    if "lake" in code and not has_dag:
        fill(ParquetLabelStore(f"{surroundings}/lake"))
    if "SqlLabelStore" in code and not has_dag:
        fill(SqlLabelStore("warehouse", table="product_labels"))
    namespace: dict[str, Any] = {"__name__": "example", "emulator": emulator}
    # A dataclass looks up the module of its definition.
    monkeypatch.setitem(sys.modules, "example", types.ModuleType("example"))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compiled, namespace)
    stored = {
        instruction.argval
        for instruction in dis.get_instructions(compiled)
        if instruction.opname == "STORE_NAME"
    }
    # The emulator's page calls a function of the reader's.
    assert undefined_names(compiled, stored | set(namespace)) <= {"send_to", "__annotations__"}
    assert has_dag == ("dag_of_the_page" in namespace)
    if has_dag:
        dag = namespace["dag_of_the_page"]
        assert dag.task_ids
        assert json.dumps(serialized(dag)) == json.dumps(serialized(dag))


def test_the_first_dag_of_the_readme_survives_images_that_are_not_there(surroundings, emulator):
    """With its placeholders as they are, the run is green and tells what it could not label."""
    first = next(block for block in blocks("python") if block.page == ROOT / "README.md")
    code = in_this_place(first.code, surroundings).replace("https://example.com", emulator.url)
    code = code.replace("/data/photos", str(surroundings / "no_such_folder"))
    namespace: dict[str, Any] = {}
    exec(compile(with_named_dags(code), str(first), "exec"), namespace)
    labels = namespace["dag_of_the_page"].get_task("label").execute({})
    assert len(labels) == 0
    assert emulator.stats.by_api == {"picture_classify": 1}


def test_tests_of_the_service_of_the_page_pass(surroundings):
    """They pass where the service and this package are installed, without any configuration."""
    _, *tests = [block.code for block in blocks("python") if block.page == toy_service.PAGE]
    for number, code in enumerate(tests):
        (surroundings / f"test_acme_{number}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=os.environ | {"PYTHONPATH": f"{surroundings}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    ran = sum(code.count("\ndef test_") for code in tests)
    assert int(part_of(done.stdout, r"(\d+) passed")) >= ran > 0


def names_documented_by(page: Path) -> set[str]:
    """Return the names that a page of the reference documents."""
    text = page.read_text()
    names = set(re.findall(r"auto(?:class|function|exception|data):: [\w.]+\.(\w+)", text))
    for name in re.findall(r"automodule:: ([\w.]+)", text):
        module = importlib.import_module(name)
        names |= set(getattr(module, "__all__", vars(module)))
    return names


def names_used_from(package: str, code: str) -> set[str]:
    """Return the names that code imports from a package, and those it takes of its modules."""
    tree = ast.parse(code)
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}.")
        for alias in node.names
    }
    of_modules = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    modules = {name for name in imported if name.islower() and name in dict(of_modules)}
    return (imported - modules) | {name for module, name in of_modules if module in modules}


def test_all_that_the_service_of_the_page_uses_has_a_reference():
    """Classes and functions that another package's service takes from this one are documented."""
    code = [block.code for block in blocks("python") if block.page == toy_service.PAGE]
    used = set().union(*(names_used_from("airflow_imagetag.services", text) for text in code))
    assert used
    assert used - names_documented_by(DOCS / "reference" / "services.md") == set()


# --- SQL


def fill(store: Any, version: str = "1") -> None:
    """Label four images into a store, one of which cannot be decoded."""
    from PIL import Image

    images = []
    for number, colour in enumerate(("red", "green", "blue")):
        file = io.BytesIO()
        Image.new("RGB", (48, 32 + int(version)), colour).save(file, "PNG")
        images.append({"image_key": str(number), "content": file.getvalue(), "version": version})
    images.append(
        {"image_key": "3", "content": b"no image " + version.encode(), "version": version}
    )
    operator = ImageTagOperator(
        task_id="fill", images=images, store=store, max_failure_ratio=1, batch_size=2
    )
    summary = operator.execute({})
    assert (summary["tagged"], summary["failed"]) == (3, 1)


def test_every_sql_block_says_where_it_was_run():
    """SQL that was not run says why."""
    said = ("places", "reason", "parser")
    silent = [block for block in blocks("sql") if not any(getattr(block, name) for name in said)]
    assert [str(block) for block in silent] == []
    for block in blocks("sql"):
        assert set(block.places) <= {"sqlite", "postgresql", "mariadb", "duckdb", "snowflake"}, (
            block
        )


def test_sql_that_is_parsed_is_known_to_the_parser():
    """It does not take a statement that it does not know for a command."""
    sqlglot = pytest.importorskip("sqlglot", reason="the group warehouses is not installed")
    found = [block for block in blocks("sql") if block.parser]
    assert found
    for block in found:
        for statement in sqlglot.parse(block.code, dialect=block.parser):
            assert not isinstance(statement, sqlglot.exp.Command), (str(block), statement)


def test_sql_of_the_pages_loads_a_dataset(tmp_path, emulator, monkeypatch):
    """Into DuckDB and into a Snowflake of fakesnow, twice: the rows are those of ``labels()``."""
    import pandas as pd

    without_quota(emulator, monkeypatch)
    store = ParquetLabelStore(f"{tmp_path}/lake")
    fill(store)
    fill(store, version="2")
    store.compact()
    columns = ["image_key", "image_uri", "label", "probability", "rank", "api"]
    labels = pd.concat(store.labels())[columns].astype(object)
    expected = sorted(labels.where(labels.notna(), None).itertuples(index=False, name=None))
    page = {block.places: block.code for block in blocks("sql") if block.page.name == "loading.md"}
    for place, execute in (("duckdb", in_duckdb), ("snowflake", in_snowflake)):
        uri = str(tmp_path) if place == "duckdb" else f"file://{tmp_path}"
        code = page[place,].replace("s3://lake/labels", f"{uri}/lake")
        query = f"SELECT {', '.join(columns)} FROM product_labels"
        assert sorted(execute([*code.split(";")[:-1]] * 2, query)) == expected


def in_duckdb(statements: list[str], query: str) -> list[tuple[Any, ...]]:
    """Execute statements in DuckDB and return the rows of a query."""
    import duckdb

    with duckdb.connect() as connection:
        for statement in statements:
            connection.execute(statement)
        rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return rows


def in_snowflake(statements: list[str], query: str) -> list[tuple[Any, ...]]:
    """Execute statements in fakesnow and return the rows of a query."""
    fakesnow = pytest.importorskip("fakesnow", reason="the group warehouses is not installed")
    import snowflake.connector

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Arrow output", UserWarning)
        with fakesnow.patch(), snowflake.connector.connect(database="shop", schema="x") as opened:
            cursor = opened.cursor()
            for statement in statements:
                cursor.execute(statement)
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]


def test_sql_of_the_pages_runs_in_a_warehouse(database, emulator, monkeypatch):
    """Joins, the wide view and the query of failures give the rows of the store."""
    import pandas as pd

    without_quota(emulator, monkeypatch)
    keys = [str(number) for number in range(4)]
    database.run("CREATE TABLE products (sku varchar(20))")
    database.run("INSERT INTO products VALUES (:sku)", *({"sku": key} for key in keys))
    database.run("CREATE TABLE numbered (id integer)")
    database.run("INSERT INTO numbered VALUES (:id)", *({"id": int(key)} for key in keys))
    store = SqlLabelStore(database.conn_id, table="product_labels")
    fill(store)
    labels = pd.concat(store.labels())
    best: dict[str, str] = dict(
        labels[labels["rank"] == 1][["image_key", "label"]].itertuples(index=False)
    )
    assert sorted(best) == ["0", "1", "2"]
    joined, view, of_numbers, failed = (
        block
        for block in blocks("sql")
        if database.dialect in block.places and block.page.name == "tables.md"
    )
    assert {sku: label for sku, label, _ in database.rows(joined.code)} == best
    database.script(view.code)
    assert dict(database.rows(of_numbers.code)) == {int(key): best.get(key) for key in keys}
    assert database.rows(failed.code) == [("ImageDecodeError", "-1102", 1)]
    columns = [f"{name}_{rank}" for rank in (1, 2, 3) for name in ("label", "probability")]
    wide = database.rows(f"SELECT image_key, {', '.join(columns)} FROM product_labels_wide")
    assert {key: tuple(values) for key, *values in wide} == {
        key: best_three(labels[labels["image_key"] == key]) for key in best
    }


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb", "duckdb_file"])
def test_sql_of_the_pages_for_operators(kind, request, emulator, monkeypatch):
    """The cost by day, since a day and by month, the failures, and the images that are there."""
    database = request.getfixturevalue(kind)
    connection = json.loads(emulator.connection_json)
    connection["extra"] |= {"requests_per_second": 0, "price_per_thousand": 2.5}
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    store = SqlLabelStore(database.conn_id, table="product_labels")
    fill(store)
    fill(store, version="2")
    view, since = (b for b in blocks("sql") if b.places and b.page.name == "cost.md")
    database.script(view.code)
    api = connection["extra"]["api"]
    [(named, calls, cost)] = database.rows(since.code)
    assert (named, calls, cost) == (api, 8, pytest.approx(6 * 0.0025))
    rows = database.rows("SELECT runs, tagged, failed, billed_calls FROM product_labels_costs")
    assert [sum(column) for column in zip(*rows, strict=True)] == [2, 6, 2, 6]
    by_month, by_day, by_cause = (
        database.rows(block.code)
        for block in blocks("sql")
        if block.places and block.page.name == "watch.md"
    )
    assert [sum(row[place] for row in by_month) for place in (2, 3)] == [8, 6]
    assert sum(row[4] for row in by_month) == pytest.approx(6 * 0.0025)
    assert all(len(row[0]) == 7 for row in by_month)
    assert sum(row[2] for row in by_day) == 2
    assert [row[:4] for row in by_cause] == [("failed", "ImageDecodeError", "-1102", 1)]
    [present] = (b for b in blocks("sql") if b.places and b.page.name == "deletions.md")
    assert {row[0] for row in database.rows(present.code)} == {"0", "1", "2"}
    store.mark(["1"], missing_since=datetime.now(UTC), api=api)
    assert {row[0] for row in database.rows(present.code)} == {"0", "2"}


def test_columns_of_runs_are_those_of_the_page():
    """Each column of a frame of runs, and each outcome, has its row."""
    text = section("cost.md", "## The runs of a store").partition("| `outcome` |")
    assert in_first_column(text[0]) == set(RUN_COLUMNS)
    assert in_first_column(text[2]) == set(RunOutcome)


def test_sql_of_the_pages_applies_a_new_map(database, emulator, monkeypatch):
    """The statement gives stored labels the names of a table, whether or not they had others."""
    import pandas as pd

    without_quota(emulator, monkeypatch)
    store = SqlLabelStore(database.conn_id, table="product_labels")
    fill(store)
    first, second, third = pd.concat(store.labels())["label"].value_counts().index[:3]
    database.run("CREATE TABLE label_names (label text, name text)")
    names = {first: "一", second: "二", third: third, "of no image": "x"}
    counted, block = (b for b in blocks("sql") if b.places and b.page.name == "taxonomy.md")
    before = pd.concat(store.labels())
    assert dict(database.rows(counted.code)) == before["label"].value_counts().to_dict()

    def renamed() -> Any:
        database.run("DELETE FROM label_names")
        rows = [{"label": label, "name": name} for label, name in names.items()]
        database.run("INSERT INTO label_names VALUES (:label, :name)", *rows)
        database.script(block.code)
        return pd.concat(store.labels(originals=True))

    for _ in range(2):
        after = renamed()
        assert after["label"].tolist() == [names.get(label, label) for label in before["label"]]
        new = {old for old, name in names.items() if old != name and old != "of no image"}
        assert set(after["original_label"].dropna()) == new
        names = {first: "二", second: second, third: "三"}


def test_sql_of_the_pages_leaves_out_labels_below_their_thresholds(database, emulator, monkeypatch):
    """The view has the labels that reach their thresholds, and those without one."""
    import pandas as pd

    without_quota(emulator, monkeypatch)
    store = SqlLabelStore(database.conn_id, table="product_labels")
    fill(store)
    labels = pd.concat(store.labels())
    middle = labels.sort_values("probability").iloc[len(labels) // 2]
    database.run("CREATE TABLE label_thresholds (label text, min_probability float)")
    threshold = {"label": middle["label"], "p": float(middle["probability"]) + 0.001}
    database.run("INSERT INTO label_thresholds VALUES (:label, :p)", threshold)
    [block] = [b for b in blocks("sql") if b.places and b.page.name == "evaluate.md"]
    database.script(block.code)
    kept = database.rows("SELECT image_key, label FROM product_labels_trusted")
    is_kept = (labels["label"] != threshold["label"]) | (labels["probability"] >= threshold["p"])
    expected = labels[is_kept][["image_key", "label"]].itertuples(index=False, name=None)
    assert sorted(kept) == sorted(expected)
    assert 0 < len(kept) < len(labels)


def best_three(labels: Any) -> tuple[Any, ...]:
    """Return label and probability of ranks 1 to 3 of one image, None where it has fewer."""
    rows = labels.sort_values("rank")[["label", "probability"]].head(3)
    values = [value for row in rows.itertuples(index=False) for value in row]
    return tuple(values + [None] * (6 - len(values)))


def test_sql_of_the_pages_reads_a_dataset_with_duckdb(tmp_path, emulator, monkeypatch):
    """The query for raw readers gives the rows of ``labels()``, before and after a compaction."""
    import duckdb
    import pandas as pd

    without_quota(emulator, monkeypatch)
    store = ParquetLabelStore(f"{tmp_path}/lake")
    fill(store)
    fill(store, version="2")
    with store.open("picture_classify") as opened:
        # A new version that fails for now, and a failure of a version that has an answer.
        opened.write([failed("0", final=False, version="3"), failed("1", final=False, version="2")])
    [block] = [b for b in blocks("sql") if "duckdb" in b.places and b.page.name == "buckets.md"]
    code = in_this_place(block.code, tmp_path)

    columns = ["image_key", "label", "probability", "rank", "api"]

    def rows(found: Any) -> list[tuple[Any, ...]]:
        names = [column[0] for column in found.description]
        places = [names.index(column) for column in columns]
        return sorted(tuple(row[place] for place in places) for row in found.fetchall())

    files = f"{tmp_path}/lake/labels/*.parquet"
    everything = rows(duckdb.connect().execute("SELECT * FROM read_parquet(?)", [files]))
    labels = pd.concat(store.labels())[columns]
    expected = sorted(labels.itertuples(index=False, name=None))
    assert len(everything) > len(expected) > 0
    assert rows(duckdb.connect().execute(code)) == expected
    store.compact()
    assert rows(duckdb.connect().execute(code)) == expected


# --- Lists


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_airflow_cfg_go_into_the_section_that_is_there(page: Path):
    """A page that shows the section says so, and names a variable: a second one breaks Airflow."""
    text = page.read_text()
    for name in re.findall(r"AIRFLOW__IMAGETAG__([A-Z_]+)", text):
        assert name.lower() in get_provider_info()["config"]["imagetag"]["options"]
    for value in re.findall(r'AIRFLOW__IMAGETAG__UI_STORES="([^"]+)"', text):
        assert parse_stores(value)
    if "```ini\n[imagetag]" in text:
        assert "`airflow.cfg`" in text
        assert "AIRFLOW__IMAGETAG__" in text


def section(page: str, heading: str) -> str:
    """Return the text below a heading of a page, up to the next one of its level or above."""
    text = FENCE.sub("", (DOCS / page).read_text())
    level = heading.partition(" ")[0]
    assert f"\n{heading}\n" in text, (page, heading)
    below = text.partition(f"\n{heading}\n")[2]
    return re.split(rf"^#{{1,{len(level)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def in_first_column(text: str) -> set[str]:
    """Return the names in code font in the first cells of the text's tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of the text's tables by the first name in each row."""
    found = {}
    for line in text.splitlines():
        if line.startswith("|") and (names := re.findall(r"`([^`]+)`", line.split("|")[1])):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")][1:]
            found.update(dict.fromkeys(names, cells))
    return found


def parameters(of: Any) -> set[str]:
    """Return the parameters of a class, without those of its base."""
    own = signature(of.__init__).parameters.values()
    return {p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}


@pytest.mark.parametrize(
    ("of", "page", "heading"),
    [
        (ImageTagOperator, "operator.md", "## Parameters"),
        (ImageTagEvaluateOperator, "evaluate.md", "### Parameters"),
        (ImageTagSyncOperator, "deletions.md", "## Parameters"),
        (NewImagesSensor, "waiting.md", "## Parameters"),
        (NewImagesTrigger, "assets.md", "### Parameters"),
        (SqlImages, "tables.md", "## SqlImages: where the images are"),
        (SqlLabelStore, "tables.md", "## SqlLabelStore: where the labels go"),
        (ObjectStorageImages, "buckets.md", "## ObjectStorageImages: where the images are"),
        (ParquetLabelStore, "buckets.md", "## ParquetLabelStore: where the labels go"),
    ],
)
def test_every_parameter_is_listed_with_its_default(of, page, heading):
    """Each parameter has a row, with its default."""
    text = section(page, heading)
    assert parameters(of) - in_first_column(text) == set()
    rows = rows_of(text)
    defaults = {p.name: p.default for p in signature(of.__init__).parameters.values()}
    for name in parameters(of):
        shown = rows[name][0]
        if defaults[name] is signature(of.__init__).empty:
            assert shown == "required", name
        elif shown:
            assert shown.strip('"') == str(defaults[name]), name
        else:
            assert defaults[name] is None, name


@pytest.mark.parametrize("of", [SqlImages, SqlLabelStore, ObjectStorageImages, ParquetLabelStore])
def test_pages_name_the_templated_fields(of):
    """The fields that Airflow renders, and no others, are called templated."""
    pages = {"SqlImages": "tables.md", "SqlLabelStore": "tables.md"}
    page = pages.get(of.__name__, "buckets.md")
    title = "images are" if of.__name__.endswith("Images") else "labels go"
    rows = rows_of(section(page, f"## {of.__name__}: where the {title}"))
    said = {name for name in parameters(of) if "(templated)" in rows[name][-1]}
    assert said == set(of.template_fields)


def test_the_page_of_the_sensor_names_the_templated_fields():
    """The sensor's own fields, and no others."""
    rows = rows_of(section("waiting.md", "## Parameters"))
    said = {name for name, cells in rows.items() if "(templated)" in cells[-1]}
    assert said == set(NewImagesSensor.template_fields)


def test_all_parameters_of_the_operator_are_templated():
    """The page calls every parameter templated."""
    # Each operator of Airflow has a method with the name of this parameter.
    fields = {
        "dry_run" if name == "is_dry_run" else name for name in ImageTagOperator.template_fields
    }
    assert fields == parameters(ImageTagOperator)


@pytest.mark.parametrize(
    ("heading", "columns"),
    [("### The labels frame", LABEL_COLUMNS), ("### The failures frame", FAILURE_COLUMNS)],
)
def test_every_column_of_the_frames_is_listed_with_its_type(heading, columns):
    """Columns, their order and their types are those of the frames."""
    rows = rows_of(section("operator.md", heading))
    assert [(name, cells[0]) for name, cells in rows.items()] == list(columns.items())


def test_every_column_of_the_tables_is_listed_with_its_type():
    """Columns, their order and PostgreSQL's types are those of the tables that are created."""
    from sqlalchemy.dialects import postgresql

    from airflow_imagetag.stores.sql_schema import tables

    names = {
        "TIMESTAMP WITH TIME ZONE": "timestamptz",
        "FLOAT(53)": "double precision",
    }
    images, labels = tables("image_labels", None)
    for heading, table in (("### The labels table", labels), ("### The images table", images)):
        types_of = {
            column.name: column.type.compile(dialect=postgresql.dialect())
            for column in table.columns
        }
        expected = [(name, names.get(text, text.lower())) for name, text in types_of.items()]
        rows = rows_of(section("tables.md", heading))
        assert [(name, cells[0]) for name, cells in rows.items()] == expected


def test_every_column_of_the_dataset_is_listed():
    """The lists of both folders have the columns of the files, and no others."""
    from airflow_imagetag.stores.parquet_dataset import IMAGES, LABELS

    labels, images = section("buckets.md", "### Layout").split("`images/`:")
    assert in_first_column(labels) == set(LABELS.names)
    assert in_first_column(images) == set(IMAGES.names)
    athena = next(block.code for block in blocks("sql") if "EXTERNAL TABLE" in block.code)
    kinds = {"int64": "bigint", "timestamp[us, tz=UTC]": "timestamp"}
    for name, schema in (("label_rows", LABELS), ("image_rows", IMAGES)):
        said = part_of(athena, rf"{name} \((.*?)\) STORED").replace("`", "")
        columns = [tuple(column.split()) for column in said.split(",")]
        expected = [(f.name, kinds.get(str(f.type), str(f.type))) for f in schema]
        assert columns == expected


def test_every_output_is_listed(surroundings):
    """XCom keys are those that the operator pushes, keys of the summary those of a run."""
    modules = ("jobs", "outputs", "stored_outputs")
    source = "".join(
        (ROOT / f"airflow_imagetag/operators/{module}.py").read_text() for module in modules
    )
    pushed = set(re.findall(r'"(\w+)": (?:run|self\.collected)\.', source))
    assert "unsaved" in pushed
    listed = in_first_column(section("operator.md", "## Outputs").partition("###")[0])
    assert {name for name in listed if not name.startswith("label.")} == pushed
    summary = ImageTagOperator(task_id="none", images=[], store=SqlLabelStore("warehouse")).execute(
        {}
    )
    assert in_first_column(section("operator.md", "### The summary")) == set(summary)


def test_the_contents_of_an_event_are_listed():
    """Keys of a watcher's payload, of the list that it holds, and counts of an outlet's event."""
    from airflow_imagetag.models import Image
    from airflow_imagetag.watching import events

    payload = events.found([Image("1", "http://e/1.jpg")], is_all=True).payload()
    listed = in_first_column(section("assets.md", "### Label the announced images"))
    assert listed == set(payload)
    [shown] = [block for block in blocks("python") if block.code.startswith("[{")]
    assert set(ast.literal_eval(shown.code)[0]) == set(payload["images"][0])
    text = section("assets.md", "## Run after labels were written")
    assert [name for name in OUTLET_COUNTS if f"`{name}`" not in text] == []


def test_uris_of_the_stores_are_those_of_the_page():
    """Each row's store has the URI beside it as its asset's."""
    lines = section("assets.md", "## Run after labels were written").splitlines()
    cells = [re.findall(r"`([^`]+)`", line) for line in lines if line.startswith("| `")]
    stores = {
        store.__name__: store for store in (SqlLabelStore, ParquetLabelStore, DeltaLabelStore)
    }
    said = {code: uri for code, *_, uri in cells}
    assert len(said) == 5
    assert said == {code: eval(code, stores).asset.uri for code in said}


@pytest.mark.skipif(not AIRFLOW_2, reason="Airflow 3 has watchers")
def test_watching_on_airflow_2_is_refused_as_the_page_says():
    """The error names the sensor as the replacement."""
    from airflow_imagetag.assets import watch_images

    with pytest.raises(ConfigurationError, match=r"need Airflow 3\. .*NewImagesSensor"):
        watch_images("any", images=["http://e/1.jpg"], store=SqlLabelStore("warehouse"))


def test_a_run_that_was_started_by_hand_has_no_announced_images():
    """A run that another kind of asset started has none, either."""
    event = types.SimpleNamespace(extra={"tagged": 3})
    assert announced_images(None) == announced_images({}) == []
    assert announced_images({"labels": [event]}) == []


def test_every_part_of_the_package_has_its_place_in_the_architecture():
    """Each folder and module is in the table of the architecture page."""
    package = ROOT / "airflow_imagetag"
    parts = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    parts |= {path.stem for path in package.glob("*.py")} - {"__init__"}
    block = (DOCS / "architecture.md").read_text().partition("## Folders")[2].partition("\n## ")[0]
    assert {part for part in parts if not re.search(rf"\b{part}\b", block)} == set()


def test_every_decision_is_where_the_architecture_says():
    """Each file of the table exists, and has the names that stand beside it."""
    page = (DOCS / "architecture.md").read_text()
    block = page.partition("## Where decisions are made")[2].partition("\n## ")[0]
    found = re.findall(r"`([a-z_/]+(?:\.py|/))`(?:: ((?:`[\w.]+`(?:, )?)+))?", block)
    assert len(found) > 10
    for file, names in found:
        path = ROOT / "airflow_imagetag" / file
        assert path.exists(), file
        for name in re.findall(r"[\w.]+", names):
            for part in name.split("."):
                assert re.search(rf"(def|class) {part}\b", path.read_text()), (file, name)


def test_the_glossary_is_in_order():
    """A reader finds a term by its first letter."""
    block = (DOCS / "architecture.md").read_text().partition("## Glossary")[2]
    terms = [line.split("|")[1].strip().lower() for line in block.splitlines() if "|" in line][2:]
    assert terms == sorted(terms)


def test_every_public_module_has_a_reference():
    """The modules that Airflow lists of the provider, and the others that users import."""
    info = get_provider_info()
    parts = ("hooks", "operators", "sensors", "triggers")
    modules = {name for part in parts for item in info[part] for name in item["python-modules"]}
    modules |= {f"airflow_imagetag.{name}" for name in PUBLIC_MODULES}
    text = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    assert {name for name in modules if name not in text} == set()


def test_every_error_is_listed():
    """The page lists all classes of the tree, and no others."""

    def tree(kind: type[errors.ImageTagError]) -> set[str]:
        children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
        return {kind.__name__}.union(*map(tree, children))

    text = section("hook.md", "## Errors").split("Each carries")[0]
    named = set(re.findall(r"`(\w+Error)`", text)) - {"ValueError"}
    assert named == tree(errors.ImageTagError)


def test_every_error_of_an_image_has_a_remedy():
    """The page of failures names each error that the row of an image may have."""

    def classes(kind: type[errors.ImageTagError]) -> set[str]:
        # Modules that another test has loaded may have errors of their own.
        below = {one.__name__ for one in kind.__subclasses__() if one.__module__ == errors.__name__}
        return below.union(*map(classes, kind.__subclasses__()))

    listed = in_first_column(section("failures.md", "## What to do"))
    of_images = classes(errors.ImageError) | classes(errors.TransientError)
    assert of_images - {"OutageError"} - listed == set()


def test_every_setting_and_connection_field_is_listed():
    """The page lists the settings with their defaults, and the fields of a connection."""
    info = get_provider_info()
    options = info["config"]["imagetag"]["options"]
    rows = rows_of(section("connection.md", "## Settings of the package"))
    assert {name: cells[0].replace("empty", "") for name, cells in rows.items()} == {
        name: option["default"] for name, option in options.items()
    }
    [connection] = info["connection-types"]
    assert set(connection["conn-fields"]) <= in_first_column(section("connection.md", "## Fields"))


def test_every_choice_is_listed():
    """The pages list the values of ``retag`` and ``status``, schemes of storages and suffixes."""
    from airflow_imagetag.safety.uris import STORAGE_SCHEMES
    from airflow_imagetag.sources.suffixes import suffixes_of

    named = in_first_column(section("incremental.md", "## What is new"))
    assert {name.strip('"') for name in named} - {"retag"} == {*Retag, *Status}
    storage = section("security.md", "## Object storage, and connections in URIs")
    assert [scheme for scheme in STORAGE_SCHEMES if f"`{scheme}`" not in storage] == []
    listing = section("buckets.md", "### What is listed")
    assert [suffix for suffix in suffixes_of(None) if f"`{suffix}`" not in listing] == []


def test_numbers_of_the_pages_are_those_of_the_code():
    """Limits that the pages give as numbers are those of the constants."""
    from airflow_imagetag.engine import settings, shared_causes
    from airflow_imagetag.engine.answers import single_flight
    from airflow_imagetag.engine.flow import (
        aimd,
        circuit_breaker,
        rate_limiter,
        retry_policy,
        worker_pool,
    )
    from airflow_imagetag.labellers import http
    from airflow_imagetag.loading import (
        advice,
        content,
        download,
        downscaling,
        encoding,
        jpeg_guard,
        prepared,
        webp_guard,
    )
    from airflow_imagetag.operators import label_files, report, writers
    from airflow_imagetag.operators.pace import DEFAULT_MAX_IN_FLIGHT, DEFAULT_WITHOUT_QUOTA
    from airflow_imagetag.quota import QuotaTiming
    from airflow_imagetag.selection import difference
    from airflow_imagetag.sources import sql_reader
    from airflow_imagetag.stores import sql_retries
    from airflow_imagetag.watching import announcements, events, polling, query_thread

    policy = retry_policy.RetryPolicy()
    timing = QuotaTiming()
    limiter = rate_limiter.RateLimiterConfig()
    pages = sql_reader.PageSizes()
    breaker = circuit_breaker.CircuitBreakerConfig()
    waits = [policy.first_wait_seconds * 2**n for n in range(policy.max_attempts - 1)]
    in_flight = math.ceil(20 * 0.3 * worker_pool.HEADROOM) + worker_pool.SPARE_WORKERS
    most = downscaling.MAX_MEMORY_BYTES // 1_000_000
    said = {
        "connection.md": [f"{DEFAULT_MAX_IN_FLIGHT}, or {DEFAULT_WITHOUT_QUOTA} without a quota"],
        "quota.md": [
            f"begin {limiter.margin:.1%} further apart".replace("%", " %"),
            f"by {limiter.margin_step:.1%}, up to {limiter.max_margin:.0%},".replace("%", " %"),
            f"up to {aimd.LONE_REFUSED_SHARE:.0%} of a second's".replace("%", " %"),
            f"for {timing.max_outage_seconds:.0f} seconds, then",
            f"every {timing.ask_again_seconds:.0f} seconds",
            f"for {timing.redis_timeout_seconds:.0f} seconds",
            f"no answer for {limiter.lease_timeout_seconds:.0f} seconds",
            f"up to {retry_policy.MAX_RETRY_AFTER_SECONDS / 60:.0f} minutes",
            f"After {breaker.max_failures} failures in a row",
            f"up to {breaker.max_pause_seconds:.0f} seconds",
            f"After {breaker.max_outage_seconds:.0f} seconds without any",
        ],
        "hook.md": ["Up to 64 requests"],
        "operator.md": [
            f"the first {report.MAX_SAMPLED_FAILURES} failures at most",
            f"else {DEFAULT_MAX_IN_FLIGHT}, or {DEFAULT_WITHOUT_QUOTA} without a quota",
            f"up to {writers.MAX_SHOWN_FAILURES:,} rows",
            f"up to {policy.max_attempts} requests for the image",
            "up to {:g}, {:g}, {:g}, {:g} and {:g} seconds".format(*waits),
            f"such faults {breaker.max_failures} times in a row",
            f"after {breaker.max_outage_seconds:.0f} seconds without an answer",
            f"after {timing.max_outage_seconds:.0f} seconds, or",
            f"up to {settings.DRAIN_SECONDS:.0f} seconds",
            f"up to\n{retry_policy.MAX_RETRY_AFTER_SECONDS / 60:.0f} minutes",
        ],
        "tables.md": [
            f"pages of {pages.indexed:,}",
            f"of {pages.unindexed:,} where keys may repeat",
            f"or of {pages.with_content} with `content`",
            f"for up to {sql_retries.RETRY_SECONDS / 60:.0f} minutes",
        ],
        "waiting.md": [
            f"up to {query_thread.THREADS} checks at a time",
            f"not ended after {polling.QUERY_SECONDS / 60:.0f} minutes is given up",
            f"over {events.MAX_EVENT_IMAGES} images are new",
            f"in pages of {pages.indexed:,} ({pages.unindexed:,} where keys",
            f"asked for {difference.LOOKUP_ENTRIES} keys at a time",
        ],
        "assets.md": [
            f"| {announcements.MAX_ANNOUNCED:,} announced images",
            f"still wait {announcements.FIRST_REMINDER.total_seconds() / 60:.0f} minutes after",
            f"not within {announcements.BEGINS_WITHIN.total_seconds() / 60:.0f} minutes",
            f"up to {events.MAX_EVENT_IMAGES} images",
            f"up to {polling.PollTuning().max_pause_seconds / 60:.0f} minutes; a watcher",
        ],
        "limits.md": [
            f"the first {('one', 'two', 'three')[advice.LOGGED_WARNINGS - 1]} images of each kind",
            f"JPEG of quality {encoding.JPEG_QUALITY}:",
            f"up to {prepared.MAX_PROFILE_BYTES // 1024} KB is kept",
            f"more than {most // jpeg_guard.BUFFERED_BYTES_PER_PIXEL} million pixels | is not",
            (
                f"up to {content.MAX_IMAGE_BYTES // 2**20} MB each, or "
                f"{content.MAX_LARGE_IMAGE_BYTES // 2**20} MB with"
            ),
            (
                f"{http.MAX_DECODING} at most, with "
                f"{downscaling.MAX_MEMORY_BYTES // 1_000_000} MB of memory"
            ),
            (
                f"more than {most // downscaling.BYTES_PER_PIXEL} million pixels, or "
                f"{most // webp_guard.PIXEL_BYTES} million as WebP"
            ),
            f"more than {jpeg_guard.MAX_SCANS} scans",
        ],
        "taxonomy.md": [f"up to {label_files.MAX_MAP_BYTES // 2**20} MB"],
        "decisions/0006-failures.md": [
            f"held back: {difference.HELD_BACK_ENTRIES:,} of them",
            f"or {difference.HELD_BACK_BYTES // 2**20} MiB of bytes",
        ],
        "incremental.md": [
            f"the number of images; {shared_causes.MAX_IN_A_ROW} in a row end it",
            f"the latest {single_flight.MAX_REMEMBERED:,} digests",
            f"two seconds' worth and {in_flight} in flight",
            f"up to {policy.max_attempts} times in a run",
        ],
        "security.md": [
            (
                f"up to {content.MAX_IMAGE_BYTES // 2**20} MB, or "
                f"{content.MAX_LARGE_IMAGE_BYTES // 2**20} MB with"
            ),
            f"up to {download.MAX_REDIRECTS} redirects",
        ],
    }
    missing = [
        (page, text)
        for page, texts in said.items()
        for text in texts
        if " ".join(text.split()) not in " ".join((DOCS / page).read_text().split())
    ]
    assert missing == []


def test_readme_names_the_pinned_airflow():
    """The version of Airflow in the README is that of the constraints."""
    pinned = part_of((ROOT / "constraints.txt").read_text(), r"(?m:^)apache-airflow==(\S+)\n")
    assert f"Airflow {pinned} among them" in " ".join((ROOT / "README.md").read_text().split())


def test_limits_of_the_page_are_those_of_the_services():
    """Bytes, formats and advice of every interface, for each encoding."""
    from airflow_imagetag.services.account import Account
    from airflow_imagetag.services.registry import BUILT_IN

    rows = rows_of(section("limits.md", "## Limits of each interface").partition("The vendor")[0])
    assert set(rows) - {"api"} == set(BUILT_IN)
    for api, service in BUILT_IN.items():
        multipart, base64, formats, advice = rows[api]
        limits = [
            service(Account("1", "id", "key", api=api, image_encoding=encoding)).limits
            for encoding in ("multipart", "base64")
        ]
        said = [(cell or base64).replace(",", "") for cell in (multipart, base64)]
        assert said == [str(limit.max_content_bytes) for limit in limits]
        [limit] = {(one.formats, one.advised_min_pixels, one.advised_max_aspect) for one in limits}
        taken, pixels, aspect = limit
        assert formats == ("any" if taken is None else ", ".join(sorted(taken)))
        wanted = f"sides of {pixels} pixels at least, under {aspect or 0:g}:1"
        assert advice == (wanted if pixels else "none")


def test_every_oversize_is_listed():
    """Each choice for an image that is too large has a row."""
    from airflow_imagetag.loading.preflight import Oversize

    named = in_first_column(section("limits.md", "## `oversize`").partition("###")[0])
    assert {name.strip('"') for name in named} - {"oversize"} == {*Oversize}


def test_examples_page_shows_every_example():
    """The page includes each file of the folder."""
    shown = re.findall(
        r"literalinclude\} \.\./dags_examples/(\S+)", (DOCS / "examples.md").read_text()
    )
    assert sorted(shown) == sorted(path.name for path in (ROOT / "dags_examples").glob("*.py"))


# --- Links


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as MyST and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


OTHER_TEXTS = [
    path for path in sorted(ROOT.glob("*.md")) if path not in PAGES and "zh-CN" not in path.name
]


@pytest.mark.parametrize(
    "page", [*PAGES, *OTHER_TEXTS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page):
    """Files and headings that a page links to exist."""
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_the_table_of_contents():
    """Each page is in one list of its index."""
    for index in (DOCS / "index.md", DOCS / "reference" / "index.md"):
        trees = re.findall(r"\{toctree\}.*?\n\n(.*?)```", index.read_text(), re.DOTALL)
        listed = " ".join(trees).split()
        pages = {path.stem for path in index.parent.glob("*.md")} - {"index"}
        assert pages <= set(listed)
        assert len(listed) == len(set(listed))


def test_documentation_builds_without_a_warning(tmp_path):
    """Sphinx, where it is installed, finds every reference, and each link leads to an anchor."""
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-b",
            "html",
            str(DOCS),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    links = runpy.run_path(str(ROOT / "scripts" / "links.py"))
    found, others = links["faults"](tmp_path)
    assert (found, others > 0) == ([], True)
