"""Run the main job on this machine: the emulator, a real Airflow, and photographs.

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

from airflow_imagetag.testing import Emulator, Faults

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "demo"
LOG = WORK / "airflow.log"

PHOTOGRAPHS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "rocket.jpg",
]
"""Photographs in the public domain or under CC0 from scikit-image."""

# Latency and quota of the real service.
SERVICE = Faults(latency_seconds=(0.2, 0.5), requests_per_second=20)


def main() -> int:
    """Run the demo and return its exit code."""
    photographs = _photographs(WORK / "photographs")
    with Emulator(faults=SERVICE) as emulator:
        print(f"The emulator of the label service listens at {emulator.url}")
        environment = _environment(emulator, photographs)
        print("Creating Airflow's metadata database (SQLite)")
        code = _airflow(environment, "db", "migrate")
        if code == 0:
            print("Running dags_examples/label_images.py with 'airflow dags test'")
            parameters = {"folder": str(photographs), "output": str(WORK / "labels")}
            conf = json.dumps(parameters)
            code = _airflow(environment, "dags", "test", "label_images", "-c", conf)
    # 'dags test' can end with 0 after a failed task, so the outputs decide.
    table = WORK / "labels" / "labels.parquet"
    if code != 0 or not table.exists():
        sys.stderr.write(LOG.read_text()[-4000:])
        sys.stderr.write(f"\nThe run failed (exit code {code}). Read Airflow's log: {LOG}\n")
        return 1
    _show(table)
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


def _environment(emulator: Emulator, photographs: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AIRFLOW_HOME": str(WORK / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags_examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(photographs),
        "AIRFLOW_CONN_IMAGETAG_DEFAULT": emulator.connection_json,
    }


def _airflow(environment: dict[str, str], *arguments: str) -> int:
    with LOG.open("a") as log:
        command = [sys.executable, "-m", "airflow", *arguments]
        return subprocess.run(
            command, env=environment, stdout=log, stderr=log, check=False
        ).returncode


def _show(table: Path) -> None:
    labels = pd.read_parquet(table)
    summary = json.loads((table.parent / "summary.json").read_text())
    print()
    print(f"{'photograph':24}{'rank':>4}  {'label':24}{'probability':>11}")
    for key, rows in labels.groupby("image_key", sort=True):
        for row in rows.itertuples():
            name = str(key) if row.rank == 1 else ""
            print(f"{name:24}{row.rank:>4}  {row.label:24}{row.probability:>11.2f}")
    print()
    for name, value in summary.items():
        print(f"{name:20}{'-' if value is None else value}")
    print()
    print("The labels come from the emulator, which measures pixels and recognises nothing.")
    for name in ("labels.parquet", "labels.csv", "summary.json"):
        print(f"Written: {table.parent / name}")
    print(f"Airflow's log: {LOG}")


if __name__ == "__main__":
    sys.exit(main())
