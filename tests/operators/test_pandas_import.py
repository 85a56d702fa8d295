"""Pandas takes a second to load: beside the calls, where no quota asks for an even pace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_imagetag.testing import Emulator, Faults

# Runs in a process of its own, without pandas so far: labels the files of a folder, and prints
# how that ended.
TASK = """
import importlib.abc, json, sys, threading
from pathlib import Path

from airflow_imagetag.operators.imagetag import ImageTagOperator

assert "pandas" not in sys.modules
by = []

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "pandas":
            by.append(threading.current_thread().name)
            if sys.argv[2] == "broken":
                raise ImportError("numpy and pandas do not fit")

sys.meta_path.insert(0, Finder())

class TaskInstance:
    xcoms = {}

    def xcom_push(self, key, value):
        self.xcoms[key] = value

error = None
files = list(map(str, Path(sys.argv[1]).iterdir()))
try:
    labels = ImageTagOperator(task_id="a", images=files).execute({"ti": TaskInstance()})
except Exception as raised:
    error = f"{type(raised).__name__}: {raised}"
rows = None if error else len(set(labels["image_key"]))
print(json.dumps({"by": by, "error": error, "rows": rows}))
"""


def run(folder: Path, images: list[bytes], pandas: str) -> dict[str, Any]:
    """Run the task and return what it prints last."""
    for number, data in enumerate(images):
        (folder / f"{number}.jpg").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TASK, str(folder), pandas],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=["quota", "no quota"])
def service(
    request: pytest.FixtureRequest, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Emulator:
    """Give a service with a quota, and one without."""
    fields = json.loads(emulator.connection_json)
    fields["extra"]["requests_per_second"] = 20 if request.param == "quota" else 0
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(fields))
    return emulator


def test_pandas_is_loaded_by_a_thread_of_its_own(service: Emulator, small_jpegs, tmp_path: Path):
    """The labels come as a frame all the same."""
    found = run(tmp_path, small_jpegs(10), "usable")
    assert found == {"by": ["imagetag-import"], "error": None, "rows": 10}
    assert service.stats.requests == 10


def test_a_pandas_that_cannot_be_loaded_ends_the_run(service: Emulator, small_jpegs, tmp_path):
    """At once: labels that no frame can hold are not to be paid for."""
    found = run(tmp_path, small_jpegs(400), "broken")
    assert found["error"] == "ImportError: numpy and pandas do not fit"
    assert service.stats.requests < 100


def test_no_request_meets_the_quota_of_another_because_pandas_is_loaded(
    emulator: Emulator, small_jpegs, tmp_path: Path
):
    """Loading holds the process up for moments, after which requests would come too close."""
    emulator.faults = Faults(latency_seconds=0.1, requests_per_second=20)
    assert run(tmp_path, small_jpegs(40), "usable")["rows"] == 40
    assert emulator.stats.over_limit == 0
    assert emulator.stats.requests == 40
