"""Pandas is slow to load: beside the calls, where no quota asks for an even pace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_imagetag.testing import Emulator, Faults

# Runs in a process of its own, without pandas so far: labels the files of a folder and prints
# how that ended.
TASK = """
import importlib.abc, json, signal, sys, threading, time
from pathlib import Path

from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources.base import ImageSource

assert "pandas" not in sys.modules
by, loaded = [], []

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "pandas":
            by.append(threading.current_thread().name)
            if sys.argv[2] == "broken":
                raise ImportError("numpy and pandas do not fit")
            if sys.argv[2] == "slow":
                time.sleep(6)

sys.meta_path.insert(0, Finder())

class TaskInstance:
    xcoms = {}

    def xcom_push(self, key, value):
        self.xcoms[key] = value

class Files(ImageSource):
    template_fields = ()
    is_in_memory = True

    def entries(self, **_):
        loaded.append(hasattr(sys.modules.get("pandas"), "DataFrame"))
        for file in Path(sys.argv[1]).iterdir():
            yield Image(file.name, content=file.read_bytes())

class TimedOut(BaseException):  # like Airflow's own, no Exception
    pass

def time_out(*_):
    raise TimedOut("after a while")

if sys.argv[2] == "slow":
    signal.signal(signal.SIGALRM, time_out)
    signal.setitimer(signal.ITIMER_REAL, 4)
error = labels = None
try:
    labels = ImageTagOperator(task_id="a", images=Files()).execute({"ti": TaskInstance()})
except BaseException as raised:
    error = f"{type(raised).__name__}: {raised}"
    labels = TaskInstance.xcoms.get("return_value")
rows = None if labels is None else len(set(labels["image_key"]))
print(json.dumps({"by": by, "loaded": loaded, "error": error, "rows": rows}))
"""


def run(folder: Path, images: list[bytes], pandas: str) -> dict[str, Any]:
    """Run the task and return its last output."""
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
    # As long as the service takes, so that the run is not over before pandas is asked for.
    emulator.faults = Faults(latency_seconds=0.3)
    return emulator


def test_pandas_is_loaded_by_a_thread_of_its_own(service: Emulator, small_jpegs, tmp_path: Path):
    """The labels come as a frame all the same.

    With a quota it is loaded before the first image is looked at: loading holds the process up for
    moments, after which requests would come too close.
    """
    found = run(tmp_path, small_jpegs(10), "usable")
    assert (found["by"], found["error"], found["rows"]) == (["imagetag-import"], None, 10)
    assert service.stats.requests == 10
    if json.loads(os.environ["AIRFLOW_CONN_IMAGETAG_DEFAULT"])["extra"]["requests_per_second"]:
        assert found["loaded"] == [True]


def test_a_run_that_is_over_sooner_loads_pandas_at_its_end(
    service: Emulator, small_jpegs, tmp_path: Path
):
    """It waits for it then, and the labels come as a frame."""
    service.faults = Faults()
    found = run(tmp_path, small_jpegs(1), "usable")
    assert (found["error"], found["rows"]) == (None, 1)
    assert len(found["by"]) == 1


@pytest.mark.parametrize("service", ["no quota"], indirect=True)
def test_a_run_that_is_over_is_not_lost_while_pandas_is_loaded(
    service: Emulator, small_jpegs, tmp_path: Path
):
    """Its time runs out when all is paid for: the labels are in the outputs all the same."""
    service.faults = Faults()
    found = run(tmp_path, small_jpegs(5), "slow")
    assert (found["error"], found["rows"]) == ("TimedOut: after a while", 5)
    assert service.stats.billed == 5


def test_a_pandas_that_cannot_be_loaded_ends_the_run(service: Emulator, small_jpegs, tmp_path):
    """At once: labels that no frame can hold are not to be paid for."""
    found = run(tmp_path, small_jpegs(400), "broken")
    assert found["error"] == "ImportError: numpy and pandas do not fit"
    assert service.stats.requests < 100
