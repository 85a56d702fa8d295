"""Run the main job on this machine: a real Airflow, photographs, and a model that labels them.

All output is in ``build/demo``. The demo needs no account and leaves no process running.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "demo"
LOG = WORK / "airflow.log"

CONNECTION = '{"conn_type": "imagetag", "extra": {"api": "local"}}'

COMMAND = str(Path(sys.executable).with_name("airflow-imagetag"))

AIRFLOW = (sys.executable, "-m", "airflow")

MIN_PROBABILITY = 0.1
BAR_CHARACTERS = 20

PHOTOGRAPHS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
]
"""Photographs in the public domain or under CC0 from scikit-image."""


def main() -> int:
    """Run the demo and return its exit code."""
    photographs = _photographs(WORK / "photographs")
    print("A model in the task's process labels the photographs; nothing is sent anywhere")
    environment = _environment(photographs)
    print("Creating Airflow's metadata database (SQLite)")
    code = _run(environment, *AIRFLOW, "db", "migrate")
    if code == 0:
        print("Running dags_examples/label_images.py with 'airflow dags test'")
        parameters = {
            "folder": str(photographs),
            "output": str(WORK / "labels"),
            "min_probability": MIN_PROBABILITY,
        }
        test = (*AIRFLOW, "dags", "test", "label_images", "-c", json.dumps(parameters))
        code = _run(environment, *test)
    # 'dags test' can end with 0 after a failed task, so the outputs decide.
    table = WORK / "labels" / "labels.parquet"
    if code != 0 or not table.exists():
        return _failed(code)
    report = WORK / "report.html"
    print("Labelling them into a store, which a report can show")
    code = _report(environment, photographs, report)
    if code != 0 or not report.exists():
        return _failed(code)
    _show(table)
    print(f"Open in a browser: {report.as_uri()}")
    return 0


def _photographs(folder: Path) -> Path:
    shutil.rmtree(WORK, ignore_errors=True)
    folder.mkdir(parents=True)
    # The demo needs only the photographs, so it does not import scikit-image.
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed: run 'make demo'")
    for name in PHOTOGRAPHS:
        shutil.copy(Path(spec.origin).parent / "data" / name, folder)
    return folder


def _environment(photographs: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AIRFLOW_HOME": str(WORK / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags_examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(photographs),
        "AIRFLOW_CONN_IMAGETAG_DEFAULT": CONNECTION,
    }


def _run(environment: dict[str, str], *command: str) -> int:
    with LOG.open("a") as log:
        return subprocess.run(
            command, env=environment, stdout=log, stderr=log, check=False
        ).returncode


def _report(environment: dict[str, str], photographs: Path, report: Path) -> int:
    store = str(WORK / "store")
    shown = ("--local", "--min-probability", str(MIN_PROBABILITY), "--top-k", "3")
    code = _run(environment, COMMAND, "label", str(photographs), "--to", store, *shown)
    return code or _run(environment, COMMAND, "report", store, str(report))


def _failed(code: int) -> int:
    sys.stderr.write(LOG.read_text()[-4000:])
    sys.stderr.write(f"\nThe run failed (exit code {code}). Read Airflow's log: {LOG}\n")
    return 1


def _show(table: Path) -> None:
    labels = pd.read_parquet(table)
    summary = json.loads((table.parent / "summary.json").read_text())
    print()
    print(f"{'photograph':24}{'label':22}{'probability':>11}")
    for photograph in PHOTOGRAPHS:
        rows = labels[labels["image_key"] == photograph]
        name = photograph
        for label, probability in zip(rows["label"], rows["probability"], strict=True):
            print(f"{name:24}{label:22}{probability:>11.2f}  {_bar(probability)}")
            name = ""
        if rows.empty:
            print(f"{photograph:24}no label of {MIN_PROBABILITY} or more")
    print()
    for name, value in summary.items():
        print(f"{name:20}{'-' if value is None else value}")
    print()
    print(
        "The model knows 1,000 kinds of things, and no persons, textures or planets: docs/local.md."
    )
    for name in ("labels.parquet", "labels.csv", "summary.json"):
        print(f"Written: {table.parent / name}")
    print(f"Airflow's log: {LOG}")


def _bar(probability: float) -> str:
    return "#" * max(1, round(probability * BAR_CHARACTERS))


if __name__ == "__main__":
    sys.exit(main())
