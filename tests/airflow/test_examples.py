"""Every example DAG runs, and so does the demo."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.providers.common.compat.sdk import DAG
from buckets import Bucket
from clusters import AIRFLOW_2, HERE, ROOT
from databases import Database, failed, tagged
from hosts import Run, connection

from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator

EXAMPLES = ROOT / "dags_examples"
STATES = "select status, count(*) from product_labels_images group by status"


@dataclass
class Setting:
    """What an example needs besides the connection ``imagetag_default``, and what it must leave.

    :param conf: the configuration of its run.
    :param environment: variables, such as further connections.
    :param check: looks at what the run left, and raises if it is not right.
    :param change: changes one image after the first run; the second run must find nothing new, and
        the third, after the change, one image. None for an example without a store.
    :param waits: whether the example waits for new images, so that there is no such second run.
    """

    conf: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    check: Callable[[Run, Emulator], None] = lambda run, emulator: None
    change: Callable[[], object] | None = None
    waits: bool = False


def label_images(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Three photographs in a folder; the labels go to another."""
    photographs, labels = folder / "photographs", folder / "labels"
    photographs.mkdir()
    for number, content in enumerate(request.getfixturevalue("photographs")[:3]):
        (photographs / f"{number}.jpg").write_bytes(content)

    def check(run: Run, emulator: Emulator) -> None:
        import pandas as pd

        keys = set(pd.read_parquet(labels / "labels.parquet")["image_key"])
        assert keys == {"0.jpg", "1.jpg", "2.jpg"}
        assert len(pd.read_csv(labels / "labels.csv")) >= 3
        assert json.loads((labels / "summary.json").read_text())["tagged"] == 3
        assert emulator.stats.billed == 3

    return Setting(
        conf={"folder": str(photographs), "output": str(labels)},
        environment={"AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(photographs)},
        check=check,
    )


def local_model(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Photographs in a folder, and a connection without an account."""
    pytest.importorskip("onnxruntime")
    photographs, labels = folder / "photographs", folder / "labels"
    photographs.mkdir()
    for number, content in enumerate(request.getfixturevalue("photographs")[:3]):
        (photographs / f"{number}.jpg").write_bytes(content)

    def check(run: Run, emulator: Emulator) -> None:
        summary = run.xcom("label_photographs")
        assert (summary["tagged"], summary["failed"], summary["estimated_cost"]) == (3, 0, 0)
        frames = list(ParquetLabelStore(str(labels)).images())
        assert {api for frame in frames for api in frame["api"]} == {"local:efficientnet-lite0"}
        assert emulator.stats.requests == 0

    return Setting(
        conf={"photographs": str(photographs), "labels": str(labels)},
        environment={
            "AIRFLOW_CONN_IMAGETAG_LOCAL": '{"conn_type": "imagetag", "extra": {"api": "local"}}',
            "AIRFLOW__IMAGETAG__MODEL_CACHE_PATH": str(request.getfixturevalue("model_cache")),
            "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(photographs),
        },
        check=check,
    )


def products(request: pytest.FixtureRequest, without_photograph: int = 1) -> Database:
    """Make a table of nine products in PostgreSQL, and of some without a photograph."""
    database: Database = request.getfixturevalue("postgres")
    database.run(
        "create table products (sku text primary key, photo_url text, updated_at timestamptz)"
    )
    urls = [*request.getfixturevalue("image_urls")[:9], *[None] * without_photograph]
    rows = [{"sku": f"SKU-{number}", "url": url} for number, url in enumerate(urls)]
    database.run("insert into products values (:sku, :url, now())", *rows)
    return database


def warehouse_enrichment(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a table of products beside which a table of labels is kept, in the same database."""
    warehouse = products(request)

    def check(run: Run, emulator: Emulator) -> None:
        states = dict(warehouse.rows("select image_key, status from product_labels_images"))
        expected = {f"SKU-{number}": "tagged" for number in range(9)}
        assert states == expected | {"SKU-9": "failed"}
        best = warehouse.rows(
            "SELECT p.sku, l.label, l.probability FROM products p "
            "JOIN product_labels l ON l.image_key = p.sku AND l.rank = 1"
        )
        assert sorted(sku for sku, _, _ in best) == sorted(expected)
        assert all(label and 0 < probability <= 1 for _, label, probability in best)
        assert emulator.stats.billed == emulator.stats.requests == 9
        summary = run.xcom("label_products")
        assert (summary["tagged"], summary["failed"]) == (9, 1)

    def change() -> None:
        warehouse.run("update products set updated_at = now() where sku = 'SKU-3'")

    return Setting(
        environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json},
        check=check,
        change=change,
    )


def retry_failures(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a store in which two of the products have failed, one of which was given up."""
    warehouse = products(request)
    keys: dict[str, dict[str, Any]] = {
        "SKU-0": {"has_given_up": True},
        "SKU-1": {"next_try_at": datetime.now(UTC)},
    }
    with SqlLabelStore("warehouse", "product_labels").open("picture_classify") as opened:
        opened.write([failed(key, final=False, **fields) for key, fields in keys.items()])

    def check(run: Run, emulator: Emulator) -> None:
        rows = warehouse.rows("select image_key, status from product_labels_images")
        assert dict(rows) == dict.fromkeys(keys, "tagged"), "products never tried are left"
        assert emulator.stats.billed == emulator.stats.requests == 2

    return Setting(
        environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json},
        check=check,
    )


def monthly_budget(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a table of nine products with a photograph, and a budget for five."""
    warehouse = products(request)

    def check(run: Run, emulator: Emulator) -> None:
        assert (run.xcom("look")["new"], run.xcom("look")["calls"]) == (9, 9)
        assert run.xcom("label")["out_of_budget"] is True
        assert run.xcom("report") == emulator.stats.billed == emulator.stats.requests == 5

    return Setting(
        conf={"calls_of_a_month": 5},
        environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json},
        check=check,
    )


def evaluate_labels(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have labels of two products and the truth of three."""
    warehouse: Database = request.getfixturevalue("postgres")
    warehouse.run("create table product_truth (sku text, label text)")
    truth = [("1", "cat"), ("2", None), ("3", "cat")]
    rows = [{"sku": sku, "label": label} for sku, label in truth]
    warehouse.run("insert into product_truth values (:sku, :label)", *rows)
    with SqlLabelStore("warehouse", "product_labels").open("DetectLabelPro") as opened:
        opened.write([tagged("1", "cat"), tagged("2", "cat")])

    def check(run: Run, emulator: Emulator) -> None:
        summary = run.xcom("evaluate", "summary")
        assert (summary["images"], summary["missing"], summary["labels"]) == (2, 1, 1)
        assert summary["micro"][0] == {
            "threshold": 0.0,
            "precision": 0.5,
            "recall": 1.0,
            "f1": 2 / 3,
            "support": 1,
        }
        assert emulator.stats.requests == 0

    return Setting(environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json}, check=check)


def clean_up_deleted(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a store that holds labels of a product which is gone."""
    warehouse = products(request)
    with SqlLabelStore("warehouse", "product_labels").open("picture_classify") as opened:
        opened.write([replace(tagged("SKU-GONE", "x"), api="picture_classify")])

    def check(run: Run, emulator: Emulator) -> None:
        keys = {key for [key] in warehouse.rows("select image_key from product_labels_images")}
        assert keys == {f"SKU-{number}" for number in range(10)}
        labelled = warehouse.value("select count(distinct image_key) from product_labels")
        assert labelled == emulator.stats.billed == 9
        summary = run.xcom("clean_up")
        assert (summary["missing"], summary["deleted"]) == (1, 1)

    return Setting(
        environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json},
        check=check,
    )


def bucket_to_parquet(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Photographs in a bucket, and the labels in a dataset of the same storage."""
    bucket: Bucket = request.getfixturevalue("bucket")
    photographs = request.getfixturevalue("photographs")
    for number, content in enumerate(photographs[:6]):
        bucket.put(f"photos/2026/{number % 2}/{number}.jpg", content)
    bucket.put("photos/2026/notes.txt", b"no photograph")
    bucket.put("photos/2025/old.jpg", photographs[6])

    def frames(kind: str) -> Any:
        import pandas as pd

        files = [key for key in sorted(bucket.all_keys()) if key.startswith(f"lake/labels/{kind}/")]
        assert all(key.endswith(".parquet") for key in files)
        bodies = [bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"] for key in files]
        return pd.concat([pd.read_parquet(io.BytesIO(body.read())) for body in bodies])

    def check(run: Run, emulator: Emulator) -> None:
        uris = {f"s3://{bucket.name}/photos/2026/{n % 2}/{n}.jpg" for n in range(6)}
        labels, images = frames("labels"), frames("images")
        assert set(labels["image_key"]) == uris
        assert labels["probability"].min() >= 0.3
        assert not labels.duplicated(["image_key", "rank"]).any()
        assert sorted(images["image_key"]) == sorted(uris)
        assert set(images["status"]) == {"tagged"}
        assert emulator.stats.billed == emulator.stats.requests == 6

    return Setting(
        conf={
            "photographs": f"s3://aws_default@{bucket.name}/photos/2026/",
            "labels": f"s3://aws_default@{bucket.name}/lake/labels/",
        },
        environment={"AIRFLOW_CONN_AWS_DEFAULT": bucket.connection_json},
        check=check,
        change=lambda: bucket.put("photos/2026/1/3.jpg", photographs[7]),
    )


def delta_to_warehouse(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Photographs in a bucket, Delta tables beside them, and a warehouse that is loaded."""
    pytest.importorskip("deltalake", reason="the extra delta is not installed")
    bucket: Bucket = request.getfixturevalue("bucket")
    warehouse: Database = request.getfixturevalue("postgres")
    photographs = request.getfixturevalue("photographs")
    for number, content in enumerate(photographs[:3]):
        bucket.put(f"photos/2026/{number}.jpg", content)

    def check(run: Run, emulator: Emulator) -> None:
        uris = {f"s3://{bucket.name}/photos/2026/{number}.jpg" for number in range(3)}
        rows = warehouse.rows("select image_key, label, rank from photo_labels")
        assert {key for key, _, _ in rows} == uris
        assert len(rows) == len({(key, rank) for key, _, rank in rows}) == run.xcom("load")
        logs = [key for key in bucket.all_keys() if "lake/labels/_delta_log/" in key]
        assert logs
        assert emulator.stats.billed == emulator.stats.requests == 3

    return Setting(
        conf={
            "photographs": f"s3://aws_default@{bucket.name}/photos/2026/",
            "labels": f"s3://aws_default@{bucket.name}/lake/",
        },
        environment={
            "AIRFLOW_CONN_AWS_DEFAULT": bucket.connection_json,
            "AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json,
        },
        check=check,
        change=lambda: bucket.put("photos/2026/1.jpg", photographs[7]),
    )


def cos_bucket(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Photographs in the emulator's bucket, and a table of labels."""
    warehouse: Database = request.getfixturevalue("postgres")
    emulator: Emulator = request.getfixturevalue("emulator")
    for number, content in enumerate(request.getfixturevalue("photographs")[:3]):
        emulator.put_object(f"2026/{number}.jpg", content)
    emulator.put_object("2025/old.jpg", b"")

    def check(run: Run, emulator: Emulator) -> None:
        keys = warehouse.rows("select image_key from photo_labels_images order by 1")
        assert [key for (key,) in keys] == [
            f"cos://emulator-1250000001/2026/{number}.jpg" for number in range(3)
        ]
        assert emulator.stats.billed_by_api == {"ci_detect_label": 3}
        assert emulator.stats.object_downloads == 0

    return Setting(
        conf={"photographs": "cos://emulator-1250000001/2026/"},
        environment={
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": emulator.connection_json_for("ci_detect_label"),
            "AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json,
        },
        check=check,
    )


def load_downstream(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a table of products, and one of best labels that the DAG's own task fills."""
    warehouse = products(request)

    def check(run: Run, emulator: Emulator) -> None:
        best = dict(warehouse.rows("select sku, label from best_labels"))
        assert sorted(best) == [f"SKU-{number}" for number in range(9)]
        assert all(best.values())
        assert run.xcom("load") == 9
        assert emulator.stats.billed == emulator.stats.requests == 9

    return Setting(
        environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json},
        check=check,
    )


def sensor_to_load(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Photographs in a bucket that have been there for an hour, and the labels in a warehouse."""
    bucket: Bucket = request.getfixturevalue("bucket")
    warehouse: Database = request.getfixturevalue("postgres")
    photographs = request.getfixturevalue("photographs")
    for number, content in enumerate(photographs[:4]):
        bucket.put(f"incoming/{number}.jpg", content)
    bucket.grow_old()

    def check(run: Run, emulator: Emulator) -> None:
        uris = [f"s3://{bucket.name}/incoming/{number}.jpg" for number in range(4)]
        assert sorted(image["image_key"] for image in run.xcom("wait")) == uris
        assert run.xcom("label")["tagged"] == 4
        assert run.xcom("load") == 4
        best = warehouse.rows("select image_key from photo_labels where rank = 1")
        assert sorted(key for (key,) in best) == uris
        assert warehouse.value("select sum(photos) from photos_by_label") == 4
        assert emulator.stats.billed == emulator.stats.requests == 4

    def change() -> None:
        bucket.put("incoming/3.jpg", photographs[4])
        bucket.grow_old()

    return Setting(
        conf={"photographs": f"s3://aws_default@{bucket.name}/incoming/"},
        environment={
            "AIRFLOW_CONN_AWS_DEFAULT": bucket.connection_json,
            "AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json,
        },
        check=check,
        change=change,
        waits=True,
    )


def translated_labels(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a table of products, and a bucket for the file of names."""
    warehouse = products(request, without_photograph=0)
    bucket: Bucket = request.getfixturevalue("bucket")

    def check(run: Run, emulator: Emulator) -> None:
        rows = warehouse.rows("select label, original_label, rank from translated_labels")
        pairs = {(label, original) for label, original, _ in rows}
        renamed = {pair for pair in pairs if pair[1] is not None}
        assert renamed
        assert renamed <= {("light", "Bright"), ("low light", "Dark")}
        assert not {"Bright", "Dark", "Sharp", "Blurry"} & {label for label, _ in pairs}
        assert len(pairs) > len(renamed)
        assert warehouse.value("select count(*) from translated_labels where rank = 1") == 9
        assert emulator.stats.billed == emulator.stats.requests == 9

    def change() -> None:
        warehouse.run("update products set sku = 'SKU-new' where sku = 'SKU-3'")

    return Setting(
        conf={"names": f"s3://aws_default@{bucket.name}/names/labels.csv"},
        environment={
            "AIRFLOW_CONN_AWS_DEFAULT": bucket.connection_json,
            "AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json,
        },
        check=check,
        change=change,
    )


def sharded_warehouse(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a table of products, of which sixteen tasks label a part each, one after the other."""
    warehouse = products(request)

    def check(run: Run, emulator: Emulator) -> None:
        states = dict(warehouse.rows(STATES))
        assert states == {"tagged": 9, "failed": 1}
        assert emulator.stats.billed == emulator.stats.requests == 9
        assert len(run.states) == 16

    return Setting(
        environment={"AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json},
        check=check,
    )


def watched_bucket(folder: Path, request: pytest.FixtureRequest) -> Setting:
    """Have a bucket with a photograph that no asset has announced."""
    if AIRFLOW_2:
        pytest.skip("watched assets need Airflow 3")
    bucket: Bucket = request.getfixturevalue("bucket")
    bucket.put("incoming/0.jpg", request.getfixturevalue("photographs")[0])

    def check(run: Run, emulator: Emulator) -> None:
        assert run.xcom("label")["seen"] == 0
        assert emulator.stats.requests == 0

    return Setting(
        environment={
            "AIRFLOW_CONN_AWS_DEFAULT": bucket.connection_json,
            "IMAGETAG_LAKE": f"s3://aws_default@{bucket.name}",
        },
        check=check,
    )


# One function for each file of dags_examples. Its parameters are an empty folder and the request of
# the test, for any fixture (a PostgreSQL, an S3); it returns the setting of the run.
SETTINGS: dict[str, Callable[[Path, pytest.FixtureRequest], Setting]] = {
    "bucket_to_parquet.py": bucket_to_parquet,
    "cos_bucket.py": cos_bucket,
    "delta_to_warehouse.py": delta_to_warehouse,
    "label_images.py": label_images,
    "load_downstream.py": load_downstream,
    "local_model.py": local_model,
    "evaluate_labels.py": evaluate_labels,
    "monthly_budget.py": monthly_budget,
    "retry_failures.py": retry_failures,
    "clean_up_deleted.py": clean_up_deleted,
    "sensor_to_load.py": sensor_to_load,
    "sharded_warehouse.py": sharded_warehouse,
    "translated_labels.py": translated_labels,
    "warehouse_enrichment.py": warehouse_enrichment,
    "watched_bucket.py": watched_bucket,
}

# Examples that need more than a command: the module runs them with a scheduler and a triggerer, or
# with Celery's workers, as well.
RUN_ELSEWHERE = {"sharded_warehouse.py": "test_celery.py", "watched_bucket.py": "test_watching.py"}


def example(name: str) -> Any:
    """Return the DAG of an example; called in Airflow's process."""
    path = EXAMPLES / name
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    # A dataclass or a task of the file is looked up in its module.
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dags = [found for found in vars(module).values() if isinstance(found, DAG)]
    [dag] = [found for found in dags if found.dag_id == path.stem]
    return dag


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example_runs(name, tmp_path, request, airflow_host, emulator):
    """A run of the example ends green, its check passes, and an incremental one pays once."""
    assert name in SETTINGS, f"tell in SETTINGS what {name} needs"
    setting = SETTINGS[name](tmp_path, request)
    environment = {"AIRFLOW_CONN_IMAGETAG_DEFAULT": connection(emulator)} | setting.environment

    def run_example() -> Run:
        run: Run = airflow_host.run(example, name, conf=setting.conf, **environment)
        assert set(run.states.values()) == {"success"}, f"{run.states}\n{run.log[-6000:]}"
        return run

    setting.check(run_example(), emulator)
    if setting.change is None:
        return
    calls = emulator.stats.requests
    if not setting.waits:
        run_example()
        assert emulator.stats.requests == calls, "the second run of an incremental example"
    setting.change()
    run_example()
    assert emulator.stats.requests == calls + 1


def test_the_command_runs_an_example(tmp_path, request, new_home, emulator):
    """``airflow dags test`` ends with 0."""
    setting = label_images(tmp_path, request)
    home = new_home(
        EXAMPLES, AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator), **setting.environment
    )
    done = home.command("dags", "test", "label_images", "-c", json.dumps(setting.conf))
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-6000:]
    # The command has ended with 0 before although a task failed.
    tasks = home.query("select run_id, task_id, map_index, state from task_instance")
    assert {task[-1] for task in tasks} == {"success"}, f"{tasks}\n{log[-6000:]}"
    assert emulator.stats.billed == 3


def test_no_setting_is_left_over():
    """Each setting is that of an example, and each module named above runs its example."""
    assert set(SETTINGS) == {path.name for path in EXAMPLES.glob("*.py")}
    assert set(RUN_ELSEWHERE) <= set(SETTINGS)
    for name, module in RUN_ELSEWHERE.items():
        assert f'"{name}"' in (HERE / module).read_text()


def test_examples_have_no_import_errors(new_home):
    """Airflow's own parser finds no fault; on 2.11 a watched asset says that it needs 3."""
    home = new_home(EXAMPLES)
    where = [] if AIRFLOW_2 else ["--local"]
    done = home.command("dags", "list-import-errors", *where, "--output", "json")
    good = {path.name for path in EXAMPLES.glob("*.py")}
    if AIRFLOW_2:
        # It ends with 1 where it has found a fault, and logs other things before.
        [found] = json.loads(done.stdout[done.stdout.index('[{"filepath"') :])
        assert Path(found["filepath"]).name == "watched_bucket.py"
        last = found["error"].strip().splitlines()[-1]
        assert last.startswith("airflow_imagetag.errors.ConfigurationError: Assets that watch for")
        assert "need Airflow 3. On Airflow 2.11 use NewImagesSensor" in last
        good -= {"watched_bucket.py"}
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "No data found" in done.stdout or done.stdout.strip().endswith("[]"), done.stdout
    listed = home.command("dags", "list", *where, "--output", "json")
    for name in good:
        assert name in listed.stdout, listed.stdout + listed.stderr


def test_demo_prints_every_photograph_and_leaves_no_process():
    """The demo ends with 0, shows a table, a summary and the files, and leaves no process."""
    pytest.importorskip("onnxruntime")
    environment = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    mark = f"demo-of-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        env=environment | {"PYTHONPATH": str(ROOT), "IMAGETAG_TEST_MARK": mark},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("astronaut.png", "camera.png", "chelsea.png", "rocket.jpg"):
        assert name in done.stdout
    shown = {line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()}
    photographs = {path.name for path in (ROOT / "build" / "demo" / "photographs").iterdir()}
    assert len(photographs) == 10
    assert photographs <= shown
    assert "tagged              10" in done.stdout
    written = [
        line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("Written")
    ]
    assert len(written) == 3
    assert all(Path(path).stat().st_size for path in written)
    [report] = [line for line in done.stdout.splitlines() if line.startswith("Open in a browser")]
    page = Path(report.partition("file://")[2]).read_text(encoding="utf-8")
    assert page.count("<img ") == 10
    assert "tiger cat" in page
    assert not processes_with(mark)


def processes_with(mark: str) -> list[str]:
    """Return the command lines of processes that have inherited the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("IMAGETAG_TEST_MARK") == mark:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
