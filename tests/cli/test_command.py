"""The command ``airflow-imagetag``: labels without a DAG, and what looks after a store."""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import pandas as pd
import pytest
from databases import API, tagged

from airflow_imagetag.cli.commands import COMMANDS
from airflow_imagetag.cli.definition import get_imagetag_cli_commands
from airflow_imagetag.cli.main import main, parser
from airflow_imagetag.cli.places import source_of, store_of
from airflow_imagetag.cli.screen import show
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator
from airflow_imagetag.testing.faults import Faults

COMMAND = [
    sys.executable,
    "-W",
    "ignore",
    "-c",
    "import sys; from airflow_imagetag.cli.main import main; sys.exit(main())",
]
ROOT = Path(__file__).resolve().parents[2]
AIRFLOW_VERSION = tuple(int(part) for part in airflow.__version__.split(".")[:2])
COMMAND_LINES = sorted(
    {
        line.removeprefix("$ ")
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for line in page.read_text().splitlines()
        for line in re.split("[`|;]", line)
        if line.removeprefix("$ ").startswith("airflow-imagetag ")
        and not re.search(r"--help|\.\.\.|[A-Z]{4}", line)
    }
)
Command = Callable[..., tuple[int, Any]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command, and returns its exit code and its JSON."""

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def photos(tmp_path: Path, small_jpegs: Callable[[int], list[bytes]]) -> Path:
    """Make a folder of six photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, content in enumerate(small_jpegs(6)):
        (folder / f"{number}.jpg").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("text", "store"),
    [
        ("warehouse:labels", SqlLabelStore("warehouse", "labels")),
        ("warehouse:mart.labels", SqlLabelStore("warehouse", "mart.labels")),
        ("imagetag://warehouse/labels", SqlLabelStore("warehouse", "labels")),
        ("imagetag://warehouse/mart/labels", SqlLabelStore("warehouse", "labels", schema="mart")),
        ("imagetag://w%20h/a.b", SqlLabelStore("w h", '"a.b"')),
        ("s3://aws_default@lake/labels", ParquetLabelStore("s3://aws_default@lake/labels")),
        ("parquet:./labels", ParquetLabelStore(str(Path("labels").absolute()))),
        ("/lake/labels", ParquetLabelStore("/lake/labels")),
        ("C:/lake", ParquetLabelStore(str(Path("C:/lake").absolute()))),
    ],
)
def test_a_store_is_named_by_its_table_its_folder_or_its_asset(text, store):
    """The URI of a store's asset, which Airflow shows, names it, too."""
    assert store_of(text) == store
    if text.startswith("imagetag://"):
        assert store_of(text).asset_uri == text


@pytest.mark.parametrize("text", ["imagetag://warehouse", "imagetag://a/b/c/d", "parquet:", ""])
def test_what_names_no_store_is_refused(text):
    """The error says how to write one."""
    with pytest.raises(ConfigurationError):
        store_of(text)


def test_a_source_is_a_folder_or_a_table():
    """The options of a table are its columns, and that of a folder is a pattern."""
    options = argparse.Namespace(key="sku", uri="url", version_column="v", pattern="*.jpg")
    table = SqlImages("warehouse", table="mart.products", key="sku", uri="url", version="v")
    assert source_of("warehouse:mart.products", options) == table
    folder = ObjectStorageImages("s3://photos/", pattern="*.jpg")
    assert source_of("s3://photos/", options) == folder


def test_every_command_has_a_function_and_a_place_in_airflow():
    """The group ``airflow imagetag`` has the same commands and arguments."""
    [group] = get_imagetag_cli_commands()
    assert (group.name, [one.name for one in group.subcommands]) == (
        "imagetag",
        [one.name for one in COMMANDS],
    )
    for ours, theirs in zip(COMMANDS, group.subcommands, strict=True):
        module, _, name = ours.run.partition(":")
        assert callable(getattr(import_module(module), name))
        parser = argparse.ArgumentParser()
        for argument in theirs.args:
            argument.add_to_parser(parser)
        assert parser.format_help()


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="this Airflow takes no commands of providers")
def test_the_command_of_airflow_writes_results_only(
    photos: Path, tmp_path: Path, emulator: Emulator
):
    """What Airflow logs goes to the standard error; the exit codes are the same."""
    words = [sys.executable, "-m", "airflow", "imagetag", "label", str(photos), "--json"]
    for more, code in ((["--to", str(tmp_path / "lake")], 0), (["--to", "nowhere:labels"], 2)):
        done = subprocess.run([*words, *more, "--dry-run"], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if code:
            assert (done.stdout, "no connection 'nowhere'" in done.stderr) == ("", True)
        else:
            assert json.loads(done.stdout)["new"] == 6


def test_a_folder_is_labelled_once(photos: Path, tmp_path: Path, emulator: Emulator, command):
    """The second run makes no calls; a third labels the new photograph only."""
    lake = str(tmp_path / "lake")
    code, first = command("label", str(photos), "--to", lake)
    assert (code, first["tagged"], first["calls"]) == (0, 6, 6)
    assert command("label", str(photos), "--to", lake)[1]["calls"] == 0
    (photos / "new.jpg").write_bytes((photos / "0.jpg").read_bytes() + b"\0")
    assert command("label", str(photos), "--to", lake)[1]["tagged"] == 1
    assert emulator.stats.billed == 7
    code, checked = command("store", "check", lake)
    assert code == 0
    assert [(row["api"], row["status"], row["images"]) for row in checked["counts"]] == [
        ("picture_classify", "tagged", 7)
    ]
    assert command("compact", lake) == (0, {"store": ParquetLabelStore(lake).serialize()})
    key = (photos / "new.jpg").as_uri()
    assert command("delete", lake, key, "nothing") == (0, {"deleted": 1})
    assert command("delete", lake, key) == (1, {"deleted": 0})
    assert len(list((tmp_path / "lake" / "images").glob("*.parquet"))) == 1


def test_runs_tell_what_they_cost(photos: Path, tmp_path: Path, emulator, monkeypatch, command):
    """Single runs, and sums by day; a dry run makes no call, and samples and budgets bound one."""
    connection = json.loads(emulator.connection_json)
    connection["extra"]["price_per_thousand"] = 1_000
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    lake = str(tmp_path / "lake")
    code, planned = command("label", str(photos), "--to", lake, "--dry-run")
    assert (code, planned["new"], planned["calls"], planned["estimated_cost"]) == (0, 6, 6, 6.0)
    assert emulator.stats.requests == 0
    assert command("label", str(photos), "--to", lake, "--sample", "2")[1]["tagged"] == 2
    assert command("label", str(photos), "--to", lake, "--max-calls", "1")[1]["tagged"] == 1
    code, runs = command("runs", lake)
    assert (code, [(run["tagged"], run["cost"], run["outcome"]) for run in runs]) == (
        0,
        [(2, 2.0, "success"), (1, 1.0, "out_of_budget")],
    )
    for by, length in (("day", 10), ("month", 7)):
        [summed] = command("runs", lake, "--by", by)[1]
        assert len(summed[by]) == length
        assert (summed["runs"], summed["tagged"], summed["cost"]) == (2, 3, 3.0)
    assert len(command("runs", lake, "--last", "1")[1]) == 1
    assert command("runs", lake, "--api", "DetectLabel") == (0, [])


def test_failures_are_listed_and_tried_again(
    photos: Path, tmp_path: Path, emulator, monkeypatch, command, capsys
):
    """All of them, their number by cause, and another try of them only."""
    (photos / "bad.jpg").write_bytes(b"no image")
    lake = str(tmp_path / "lake")
    assert command("label", str(photos), "--to", lake)[1]["failed"] == 1
    code, failures = command("failures", lake)
    assert (code, len(failures), failures[0]["error"]) == (0, 1, "ImageDecodeError")
    [cause] = command("failures", lake, "--why")[1]
    assert (cause["status"], cause["code"], cause["images"]) == ("failed", "-1102", 1)
    (photos / "bad.jpg").write_bytes((photos / "0.jpg").read_bytes() + b"\0")
    # The paths in a store are data.
    calls, before = emulator.stats.requests, command("failures", lake)[1]
    assert main(["retry", lake]) == 2
    assert f"give the folder: airflow-imagetag retry {lake} FOLDER" in capsys.readouterr().err
    assert (emulator.stats.requests, command("failures", lake)[1]) == (calls, before)
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(photos))
    calls = emulator.stats.requests
    assert command("retry", lake)[1]["tagged"] == 1
    assert command("failures", lake) == (0, [])
    assert command("retry", lake, str(photos))[1]["seen"] == 0
    assert emulator.stats.requests == calls + 1


DAG_FILE = """
from datetime import datetime
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore
from {sdk} import DAG
from {python} import PythonOperator

with DAG("shop", start_date=datetime(2026, 1, 1), schedule=None, params={{"folder": "{photos}"}}):
    store = ParquetLabelStore("{lake}")
    images = ObjectStorageImages("{{{{ params.folder }}}}")
    label = ImageTagOperator(task_id="label", images=images, store=store)
    of_run = ObjectStorageImages("{{{{ ti.folder }}}}")
    ImageTagOperator(task_id="unknown", images=of_run, store=store)
    ImageTagOperator(task_id="after", images=label.output)
    PythonOperator(task_id="other", python_callable=print)
    mapped = ImageTagOperator.partial(task_id="shards", images=images, store=store)
    mapped.expand(shard=["0/2", "1/2"])
"""


def test_a_task_is_planned_as_it_is_written(
    photos: Path, tmp_path: Path, emulator: Emulator, monkeypatch, command, capsys
):
    """Its templates are rendered; what only a run knows is said."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(photos))
    is_airflow_2 = airflow.__version__.startswith("2.")
    path = tmp_path / "dags" / "shop.py"
    path.parent.mkdir()
    code = DAG_FILE.format(
        sdk="airflow" if is_airflow_2 else "airflow.sdk",
        python=f"airflow.{'' if is_airflow_2 else 'providers.standard.'}operators.python",
        photos=photos,
        lake=tmp_path / "lake",
    )
    path.write_text(code)
    code, planned = command("plan", "shop", "label", "--dags", str(path))
    assert (code, planned["new"], planned["calls"]) == (0, 6, 6)
    assert emulator.stats.requests == 0
    assert not (tmp_path / "lake").exists()
    for arguments, message in {
        ("no_dag", "label"): "There is no DAG 'no_dag'",
        ("shop", "no_task"): "It has: ",
        ("shop", "shards"): "is mapped",
        ("shop", "other"): "is no ImageTagOperator",
        ("shop", "after"): "come from another task",
        ("shop", "unknown"): "has no value outside of a run: 'ti' is undefined",
    }.items():
        assert main(["plan", *arguments, "--dags", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_a_report_is_one_file(
    photos: Path, tmp_path: Path, emulator: Emulator, monkeypatch, capsys, command
):
    """The page has the labels of the store; the option that pictures need is named."""
    lake, page = str(tmp_path / "lake"), tmp_path / "report.html"
    assert command("label", str(photos), "--to", lake)[0] == 0
    assert command("report", lake, str(page)) == (0, {"file": str(page), "pictures_left_out": 6})
    assert "<html" in page.read_text()
    assert main(["report", lake, str(page)]) == 0
    shown = capsys.readouterr().out
    assert "6 pictures are left out" in shown
    assert f"allowed_local_paths to their folder, {photos}" in shown
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(photos))
    assert command("report", lake, str(page))[1]["pictures_left_out"] == 0
    assert main(["report", lake, str(page)]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_folder_may_be_named_from_the_current_one(
    photos: Path, tmp_path: Path, emulator: Emulator, monkeypatch, command
):
    """Source, store and file are where the shell says."""
    monkeypatch.chdir(tmp_path)
    assert command("label", "photos", "--to", "labels.csv")[1]["tagged"] == 6
    assert command("label", "./photos", "--to", "./lake")[1]["tagged"] == 6
    assert command("label", str(photos), "--to", str(tmp_path / "lake"))[1]["seen"] == 0
    assert (tmp_path / "labels.csv").exists()


def test_a_folder_has_one_name(
    photos: Path, tmp_path: Path, emulator: Emulator, monkeypatch, command
):
    """``..`` is followed to where it leads, also behind a link; a link behind it keeps its name."""
    here = tmp_path / "deep" / "here"
    here.mkdir(parents=True)
    (tmp_path / "shortcut").symlink_to(here)
    (tmp_path / "pictures").symlink_to(photos)
    monkeypatch.chdir(here)
    lake = str(tmp_path / "lake")
    assert command("label", str(photos), "--to", lake)[1]["seen"] == 6
    for name in ("../../photos", f"{tmp_path}/shortcut/../../photos", f"{photos}/../photos"):
        assert command("label", name, "--to", "../../lake")[1]["seen"] == 0
    found = command("label", "../../pictures", "--to", lake)[1]
    assert (found["seen"], found["reused"], found["calls"]) == (6, 6, 0)


def test_labels_go_to_a_file(photos: Path, tmp_path: Path, emulator: Emulator, command):
    """A CSV file has the columns of a labels frame; filters and a label map hold."""
    path = tmp_path / "labels.csv"
    (tmp_path / "map.csv").write_text("label,name\nDark,dunkel\n*,\n")
    options = ["--top-k", "1", "--max-images", "4", "--label-map", str(tmp_path / "map.csv")]
    code, _ = command("label", str(photos), "--to", str(path), *options)
    labels = pd.read_csv(path)
    assert code == 0
    assert set(labels["label"]) <= {"dunkel"}
    assert emulator.stats.requests == 4


def test_a_table_is_labelled_into_a_table(photos: Path, sqlite, emulator: Emulator, command):
    """Source and store may be tables of one database."""
    sqlite.run("create table products (sku text primary key, photo text)")
    rows = [{"sku": path.stem, "photo": str(path)} for path in photos.iterdir()]
    sqlite.run("insert into products values (:sku, :photo)", *rows)
    options = ["--key", "sku", "--uri", "photo"]
    code, summary = command("label", "warehouse:products", "--to", "warehouse:labels", *options)
    # Paths that a table names are data, and no folder is allowed here.
    assert (code, summary["failed"]) == (1, 6)
    assert summary["message"].startswith("6 of 6 images failed (100.0%). Commonest: ImageNot")
    assert summary["message"].endswith("All: airflow-imagetag failures warehouse:labels")
    assert "max_failure_ratio" not in summary["message"]
    assert emulator.stats.requests == 0


def test_ctrl_c_keeps_what_is_done(photos: Path, tmp_path: Path, small_jpegs):
    """A terminal shows a bar; the run ends in order with 130, and the next does the rest."""
    for number, content in enumerate(small_jpegs(40)):
        (photos / f"{number}.jpg").write_bytes(content)
    lake = tmp_path / "lake"
    with Emulator(faults=Faults(latency_seconds=0.1)) as emulator:
        connection = json.loads(emulator.connection_json)
        connection["extra"] |= {"requests_per_second": 10, "price_per_thousand": 1.5}
        environment = os.environ | {
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": json.dumps(connection),
            "TERM": "xterm",
            "COLUMNS": "160",
        }
        terminal, end = pty.openpty()
        arguments = [*COMMAND, "label", str(photos), "--to", str(lake)]
        with subprocess.Popen(
            [*arguments, "--json"], env=environment, stdout=subprocess.PIPE, stderr=end, text=True
        ) as process:
            os.close(end)
            shown: list[bytes] = []
            reader = threading.Thread(target=read_all, args=(terminal, shown))
            reader.start()
            deadline = time.monotonic() + 120
            while emulator.stats.billed < 8:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            reader.join()
            os.close(terminal)
        summary = json.loads(output)
        assert (process.returncode, summary["tagged"]) == (130, emulator.stats.billed)
        assert 8 <= summary["tagged"] < 40
        assert b"images/s" in b"".join(shown)
        assert b"cost" in b"".join(shown)
        with ParquetLabelStore(str(lake)).open("picture_classify") as opened:
            keys = [path.as_uri() for path in photos.iterdir()]
            assert len(opened.known(keys)) == summary["tagged"]


def read_all(terminal: int, into: list[bytes]) -> None:
    """Read a terminal to its end."""
    try:
        while chunk := os.read(terminal, 4096):
            into.append(chunk)
    # The other end was closed.
    except OSError:
        return


def test_a_store_of_an_earlier_version_is_upgraded(sqlite, command):
    """The changes are told; a second time there are none."""
    with SqlLabelStore("warehouse", "labels").open(API) as opened:
        opened.write([tagged("1", "cat")])
    code, first = command("store", "upgrade", "warehouse:labels")
    assert code == 0
    assert "labels_runs" in " ".join(first["changes"])
    assert command("store", "upgrade", "warehouse:labels")[1] == {"changes": []}


def test_labels_are_measured(sqlite, tmp_path: Path, command):
    """Scores, thresholds and a label map that the operator takes."""
    with SqlLabelStore("warehouse", "labels").open(API) as opened:
        opened.write([tagged("1", "cat"), tagged("2", "cat"), tagged("3", "dog")])
    truth = pd.DataFrame([("1", "cat"), ("2", "dog"), ("4", "dog")], columns=["image_key", "label"])
    truth.to_sql("truth", sqlite.engine, index=False)
    written = tmp_path / "map.csv"
    options = ["--threshold", "0", "--precision", "0.5", "--write-label-map", str(written)]
    code, found = command("evaluate", "warehouse:labels", "warehouse:truth", *options)
    assert (code, found["images"], found["missing"]) == (0, 2, 1)
    [cat, _] = found["labels"]
    assert (cat["label"], cat["precision"], cat["recall"]) == ("cat", 0.5, 1.0)
    assert list(pd.read_csv(written).columns) == ["label", "name", "min_probability"]
    assert main(["evaluate", "warehouse:labels", str(tmp_path / "none.csv")]) == 2


def test_the_doctor_finds_what_is_wrong(tmp_path: Path, emulator: Emulator, monkeypatch, command):
    """No call is billed; each fault has a line that says what to do, without a secret."""
    connection = json.loads(emulator.connection_json)
    code, checks = command("doctor", "--store", str(tmp_path / "lake"))
    results = {check["check"]: check for check in checks}
    assert (code, results["key"]["result"]) == (0, "ok")
    assert "Set price_per_thousand" in results["price"]["found"]
    assert emulator.stats.billed == 0
    if "page in Airflow" in results:
        page = results["page in Airflow"]
        assert page["result"] == ("ok" if AIRFLOW_VERSION >= (3, 1) else "note")

    secret = "wrongKeyOfSomeone123456789012345"
    connection |= {"password": secret}
    connection["extra"]["quota_conn_id"] = "quota"
    connection["extra"]["requests_per_second"] = 5
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_QUOTA", "sqlite:////nowhere/at/all.db")
    code, checks = command("doctor", "--store", "missing:labels")
    failed = {check["check"]: check["found"] for check in checks if check["result"] == "FAILED"}
    assert code == 1
    assert set(failed) == {"key", "quota server quota", "store missing:labels"}, failed
    assert "there is no folder for /nowhere/at/all.db" in failed["quota server quota"]
    assert "airflow connections add missing" in failed["store missing:labels"]
    assert secret not in json.dumps(checks)


def test_the_doctor_tells_how_to_install_what_is_missing(emulator: Emulator, monkeypatch, command):
    """The command that it proposes keeps the Airflow that is there."""
    from airflow_imagetag.cli import doctor

    monkeypatch.setitem(doctor.EXTRAS, "s3", ("no_such_module", "images in S3"))
    _, checks = command("doctor")
    [found] = [check["found"] for check in checks if check["check"] == "extra s3"]
    assert f'[s3]\' "apache-airflow=={airflow.__version__}"' in found
    assert "uv pip install" in found or " -c " in found


@pytest.mark.parametrize(
    ("option", "value", "result", "said"),
    [
        ("allowed_local_paths", "", "note", "no pictures of local files"),
        ("allowed_connections", "", "note", "if they need none, write allowed_connections = none."),
        ("allowed_connections", "none", "ok", "none: data may name no connection"),
        ("allowed_connections", "b, a", "ok", "a, b"),
    ],
)
def test_the_doctor_says_what_data_may_name(
    option, value, result, said, emulator: Emulator, monkeypatch, command
):
    """An option that is not set is a note that says what that means, and what to set."""
    monkeypatch.setenv(f"AIRFLOW__IMAGETAG__{option.upper()}", value)
    [found] = [check for check in command("doctor")[1] if check["check"] == option]
    assert found["result"] == result
    assert said in found["found"]


def test_the_doctor_names_no_price_of_free_calls(emulator: Emulator, monkeypatch, command):
    """A model of one's own has no price."""
    connection = json.loads(emulator.connection_json)
    connection["extra"]["price_per_thousand"] = 0
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    [found] = [check["found"] for check in command("doctor")[1] if check["check"] == "price"]
    assert found == "none: calls are free"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store", "check", "nowhere:labels"], "There is no connection 'nowhere'"),
        (
            ["label", "photos", "--to", "x.csv", "--connection", "no_such"],
            "connections add no_such",
        ),
        (["compact", "nowhere:labels"], "needs no compaction"),
        (["label", "photos", "--to", "x.csv", "--only-failed"], "--only-failed needs a store"),
        (["evaluate", "a:b", "c:d", "--write-label-map", "x.csv"], "needs --precision"),
    ],
)
def test_a_wrong_configuration_is_one_line(arguments, message, capsys):
    """The exit code is 2, and there is no traceback."""
    assert main(arguments) == 2
    [line] = [one for one in capsys.readouterr().err.splitlines() if "airflow-imagetag:" in one]
    assert message in line


OF_A_STORE = (
    ["runs"],
    ["runs", "--by", "day"],
    ["failures"],
    ["failures", "--why"],
    ["retry"],
    ["store", "check"],
    ["store", "upgrade"],
)
"""Commands for a store that exists, whose name they end with."""


def test_a_store_that_does_not_exist_is_an_error(sqlite, tmp_path: Path, capsys, emulator, command):
    """A wrong name is seen, nothing is created, and the doctor has a note."""
    lake = str(tmp_path / "lake")
    places = {
        "warehouse:labelz": "table labelz in 'warehouse'",
        lake: f"dataset of labels in {lake}",
    }
    if find_spec("deltalake") is not None:
        places["delta:" + lake] = places[lake]
    for place, name in places.items():
        more = [["report", place, str(tmp_path / "r.html")], ["delete", place, "1"]]
        more += [["evaluate", place, str(tmp_path / "truth.csv")]]
        more += [["compact", place]] if place != "warehouse:labelz" else []
        for words in (*([*words, place] for words in OF_A_STORE), *more):
            assert main(words) == 2, words
            said = capsys.readouterr().err
            assert f"There is no {name} yet. Correct the name" in said, words
            assert f"airflow-imagetag label SOURCE --to {place}" in said
        code, checks = command("doctor", "--store", place)
        assert (code, checks[-1]["result"]) == (0, "note")
        assert "is not created yet" in checks[-1]["found"]
    assert sqlite.tables() == set()
    assert not list(tmp_path.glob("[lr]*"))


def test_a_store_without_rows_is_named(sqlite, tmp_path: Path, capsys, command):
    """A store that exists and holds nothing is no error."""
    (tmp_path / "lake" / "runs").mkdir(parents=True)
    with SqlLabelStore("warehouse", "labels").open(API):
        pass
    for place in ("warehouse:labels", str(tmp_path / "lake")):
        for words in OF_A_STORE[:4]:
            assert command(*words, place) == (0, [])
            assert main([*words, place]) == 0
            assert repr(store_of(place)) in capsys.readouterr().out
        assert command("retry", place)[1]["calls"] == 0


def test_images_whose_uri_is_unknown_do_not_stop_a_retry(
    photos: Path, tmp_path: Path, sqlite, emulator: Emulator, monkeypatch, command, capsys
):
    """The others are tried, and the number of those left out is told."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(photos))
    (photos / "late.jpg").write_bytes(b"no image")
    sqlite.run("create table products (id integer primary key, image_url text)")
    sqlite.run("insert into products values (1, :path)", {"path": str(photos / "late.jpg")})
    sqlite.run("insert into products values (2, null)")
    assert command("label", "warehouse:products", "--to", "warehouse:labels")[1]["failed"] == 2
    (photos / "late.jpg").write_bytes((photos / "0.jpg").read_bytes() + b"\0")
    assert main(["retry", "warehouse:labels", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["tagged"] == 1
    assert "the URIs of 1 of 2 images" in shown.err
    assert main(["retry", "warehouse:labels"]) == 2
    assert "name their source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{}/no_tables.db", "Airflow's database has no tables: is AIRFLOW_HOME set as"),
        ("sqlite:///{}/no/such/folder.db", "Airflow's database cannot be read: OperationalError"),
    ],
)
def test_the_database_of_airflow_comes_first(url, said, tmp_path: Path, monkeypatch, capsys):
    """A connection is unknown where nothing can be looked up: that is said, without a traceback."""
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", url.format(tmp_path))
    assert main(["runs", "nowhere:labels"]) == 2
    [line] = [one for one in capsys.readouterr().err.splitlines() if one]
    assert line.startswith(f"airflow-imagetag: {said}")
    assert "There is no connection 'nowhere'" in line
    assert main(["doctor", "nowhere"]) == 1
    assert said in capsys.readouterr().out


def test_a_database_without_its_folder_is_named(tmp_path: Path, emulator, monkeypatch, capsys):
    """The driver's message has no path; the error has it, and the remedy."""
    file = tmp_path / "none" / "labels.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f"sqlite:///{file}")
    fault = f"Connection 'warehouse' cannot be used: there is no folder for {file}. Create it"
    for words in (["runs", "warehouse:labels"], ["label", "warehouse:photos", "--to", "x.csv"]):
        assert main(words) == 2
        assert fault in capsys.readouterr().err
    (tmp_path / "none" / "labels.db").mkdir(parents=True)
    assert main(["runs", "warehouse:labels"]) == 2
    assert f"{file} cannot be opened. Give this user access" in capsys.readouterr().err


def test_a_connection_is_no_folder(photos: Path, tmp_path: Path, sqlite, monkeypatch, capsys):
    """A table that was forgotten does not become a folder; a folder of this name is one."""
    monkeypatch.chdir(tmp_path)
    message = "'warehouse' is a connection. Name its table, too: warehouse:TABLE, or write ./war"
    for words in (["label", str(photos), "--to", "warehouse"], ["label", "warehouse", "--to", "."]):
        assert main([*words, "--dry-run"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "warehouse").exists()
    assert store_of("./warehouse") == ParquetLabelStore(str(tmp_path / "warehouse"))
    assert store_of("lake") == ParquetLabelStore(str(tmp_path / "lake"))
    (tmp_path / "warehouse").mkdir()
    assert store_of("warehouse") == ParquetLabelStore(str(tmp_path / "warehouse"))


def test_the_last_line_tells_where_the_labels_are(
    photos: Path, tmp_path: Path, sqlite, emulator: Emulator, capsys
):
    """A table, a folder and a file; a run without labels names none."""
    for place in ("warehouse:labels", str(tmp_path / "lake"), str(tmp_path / "labels.csv")):
        assert main(["label", str(photos), "--to", place]) == 0
        [*_, last] = capsys.readouterr().out.splitlines()
        assert last == f"The labels of 6 images are in {place}."
    assert main(["label", str(photos), "--to", "warehouse:labels"]) == 0
    assert "The labels of" not in capsys.readouterr().out
    assert main(["label", str(photos), "--to", str(tmp_path / "one.csv"), "--max-images", "1"]) == 0
    assert "The labels of 1 image are in" in capsys.readouterr().out


def test_nothing_to_label_has_reasons(
    photos: Path, tmp_path: Path, sqlite, emulator: Emulator, capsys
):
    """The store knows all, some of them have failed, or there are no images at all."""
    words = ["label", str(photos), "--to", "warehouse:labels"]
    assert main(words) == 0
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "the source has no images that the store does not know." in shown
    assert "given up" not in shown
    sqlite.run("update labels_images set status = 'gave_up' where image_key like '%/0.jpg'")
    assert main(words) == 0
    assert (
        "0 images wait for a later try and 1 were given up: airflow-imagetag failures warehouse:lab"
    ) in capsys.readouterr().out
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    sqlite.run("create table products (id integer primary key, image_url text)")
    for source, more, reason in (
        (str(tmp_path / "texts"), [], ": no name ends in one of .bmp"),
        (str(photos), ["--pattern", "*.webp"], ": no name matches the pattern '*.webp'."),
        ("warehouse:products", [], ", which has no rows."),
    ):
        for place in ("warehouse:labels", str(tmp_path / "labels.csv")):
            assert main(["label", source, "--to", place, *more]) == 0
            said = f"Nothing to label: no images were found in {source}{reason}"
            assert said in capsys.readouterr().out


def test_a_file_that_cannot_be_written_costs_nothing(
    photos: Path, tmp_path: Path, emulator: Emulator, capsys
):
    """It is found before the first call."""
    for path in (tmp_path / "none" / "labels.csv", tmp_path / "folder.csv"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        assert main(["label", str(photos), "--to", str(path)]) == 2
        assert str(path) in capsys.readouterr().err
    assert emulator.stats.requests == 0


def test_an_output_may_be_full_closed_or_cut_off(photos: Path, tmp_path: Path, emulator, command):
    """No traceback: a full disk is an error, and a reader that has seen enough is none."""
    lake = str(tmp_path / "lake")
    assert command("label", str(photos), "--to", lake)[0] == 0
    run = shlex.join([*COMMAND, "runs", lake, "--json"])
    ends = {f"{run} | true": "0\n", f"{run} > /dev/full": "1\n", f"{run} >&-": "0\n"}
    for line, code in ends.items():
        ended = subprocess.run(
            ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
        )
        assert (ended.stdout, "Traceback" in ended.stderr) == (code, False), ended.stderr


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Tell that it is one."""
        return True


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ("200", "image_key tries next_try_at\n\\x1b[31m red 3\nb\n"),
        ("20", "image_key \\x1b[31m red\ntries 3\n\nimage_key b\n"),
    ],
)
def test_a_narrow_terminal_gets_one_row_below_the_other(columns, shown, monkeypatch):
    """Where the columns do not fit; and no text of the data steers the terminal."""
    monkeypatch.setenv("COLUMNS", columns)
    out = Screen()
    show([{"image_key": "\x1b[31m red", "tries": 3, "next_try_at": None}, {"image_key": "b"}], out)
    assert re.sub(" +", " ", out.getvalue()) == shown


@pytest.mark.parametrize("last", ["0", "-3", "many"])
def test_a_list_has_one_row_at_least(last, capsys):
    """Another number is refused."""
    with pytest.raises(SystemExit) as caught:
        main(["runs", "warehouse:labels", "--last", last])
    assert caught.value.code == 2
    assert "--last" in capsys.readouterr().err


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_of_the_pages_is_understood(line):
    """Each ``airflow-imagetag`` line of README and docs has arguments that the command takes."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "emulator":
        return
    if len(words) == 1:
        # A page names the command.
        assert words[0] in {command.name for command in COMMANDS}
        return
    assert parser().parse_args(words).command.name == words[0]


def test_the_help_names_every_command(capsys):
    """The emulator is among them, and keeps its own arguments."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert [one.name for one in COMMANDS if one.name not in shown] == []
    with pytest.raises(SystemExit):
        main(["emulator", "--help"])
    assert "--latency-ms" in capsys.readouterr().out
