"""Pandas takes a second to load, so a task loads it while its calls wait for the service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from airflow_imagetag.testing import Emulator

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


def test_pandas_is_loaded_beside_the_calls(emulator: Emulator, small_jpegs, tmp_path: Path):
    """By a thread of its own; the labels come as a frame all the same."""
    found = run(tmp_path, small_jpegs(10), "usable")
    assert found == {"by": ["imagetag-import"], "error": None, "rows": 10}
    assert emulator.stats.requests == 10


def test_a_pandas_that_cannot_be_loaded_ends_the_run(emulator: Emulator, small_jpegs, tmp_path):
    """At once: labels that no frame can hold are not to be paid for."""
    found = run(tmp_path, small_jpegs(400), "broken")
    assert found["error"] == "ImportError: numpy and pandas do not fit"
    assert emulator.stats.requests < 100
