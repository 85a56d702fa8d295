"""The fixtures in the tests of another project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = """
import os
import threading
import urllib.error
import urllib.request

import pytest

VARIABLE = "AIRFLOW_CONN_IMAGETAG_DEFAULT"


def test_a_running_emulator(imagetag_emulator):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(imagetag_emulator.url)
    caught.value.close()
    assert caught.value.code == 404
    assert imagetag_emulator.stats.requests == 1
    assert VARIABLE not in os.environ


def test_a_connection(imagetag_connection, imagetag_emulator):
    from airflow.providers.common.compat.sdk import BaseHook

    found = BaseHook.get_connection("imagetag_default")
    assert found.port == imagetag_connection.port == imagetag_emulator.port
    assert found.extra_dejson == {"app_id": "1250000001", "api": "picture_classify"}


@pytest.mark.parametrize("imagetag_api", ["DetectLabelPro"])
def test_a_connection_for_another_api(imagetag_connection):
    from airflow.providers.common.compat.sdk import BaseHook

    assert imagetag_connection.extra_dejson["api"] == "DetectLabelPro"
    assert BaseHook.get_connection("imagetag_default").extra == imagetag_connection.extra


def test_afterwards():
    assert VARIABLE not in os.environ
    assert not [t for t in threading.enumerate() if t.name.startswith("imagetag")]
"""


def test_fixtures_work_in_another_project(tmp_path: Path):
    """Each test gets a new emulator, and Airflow finds the connection of the other fixture."""
    (tmp_path / "test_theirs.py").write_text(TESTS)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"),
            *("--rootdir", str(tmp_path), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "4 passed" in run.stdout, run.stdout + run.stderr
