"""The whole package on one line of Airflow: `make matrix` runs this on each.

It needs what the package needs, and pytest: `pytest --confcutdir=tests/smoke tests/smoke`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from airflow_imagetag.testing import Emulator

HERE = Path(__file__).resolve().parent
DAG_FILE = HERE / "dags" / "smoke.py"
PHOTOS = 4
MAX_SECONDS = 300


def photograph(folder: Path, number: int) -> None:
    """Write an image that differs from all others."""
    from PIL import Image

    Image.linear_gradient("L").resize((64, 64 + number)).save(folder / f"{number}.png")


def run(*command: str, **environment: str) -> str:
    """Run a command of this Python to its end, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
    )
    lines = f"{done.stdout}\n{done.stderr}".splitlines()
    told = [line[:500] for line in lines if "rror" in line or "raise" in line or "ended" in line]
    assert done.returncode == 0, "\n".join(told[-60:])
    return done.stdout


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Emulator]]:
    """Run the DAG in a new Airflow, and return its folder and the emulator that it called."""
    folder = tmp_path_factory.mktemp("smoke")
    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        photograph(folder / "photos", number)
    with Emulator() as emulator:
        environment = {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW__IMAGETAG__CHECKPOINT_PATH": str(folder / "checkpoints"),
            "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(folder / "photos"),
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": emulator.connection_json_for("DetectLabelPro"),
            "AIRFLOW_CONN_SMOKE_DB": f"sqlite:///{folder / 'labels.db'}",
            "SMOKE_FOLDER": str(folder),
        }
        run("-m", "airflow", "db", "migrate", **environment)
        run("-m", "airflow", "dags", "reserialize", **environment)
        run(str(DAG_FILE), **environment)
        yield folder, emulator


def read(folder: Path, name: str) -> dict[str, Any]:
    """Return the output of a task of the DAG."""
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def test_airflow_knows_the_provider():
    """The entry point is there, and what it returns names the hook of the connection type."""
    points = entry_points(group="apache_airflow_provider")
    [found] = [point for point in points if point.value.startswith("airflow_imagetag.")]
    [connection] = found.load()()["connection-types"]
    assert connection["connection-type"] == "imagetag"


def test_frames_pass_through_xcoms(ended):
    """Operator, decorator and mapped task give labels of each image to a task downstream."""
    folder, _ = ended
    photos = sorted(str(path) for path in (folder / "photos").iterdir())
    found = read(folder, "frames.json")
    assert found == {"frame": photos, "decorated": photos[:2], "mapped": photos}


def test_stores_hold_each_image_once(ended):
    """Sensors announce the images, runs label them, and a second run finds nothing new."""
    folder, _ = ended
    found = read(folder, "summaries.json")
    tagged = {name: summary["tagged"] + summary["reused"] for name, summary in found.items()}
    assert tagged == {"into_sql": PHOTOS, "again": 0, "into_parquet": PHOTOS, "into_delta": PHOTOS}
    assert found["again"]["calls"] == 0


def test_nothing_is_paid_twice(ended):
    """Each task paid once for each of its images; checkpoints and stores are not asked again."""
    _, emulator = ended
    assert emulator.stats.billed == 5 * PHOTOS + 2
