"""The command that ``airflow-imagetag doctor`` proposes for a missing extra."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_imagetag.cli.installing import Environment, this_environment

ROOT = Path(__file__).resolve().parents[2]
VENV: dict[str, Any] = {"python": "3.12", "executable": "/v/bin/python", "is_active": True}
OFFICIAL = "https://raw.githubusercontent.com/apache/airflow/constraints-3.3.0/constraints-3.12.txt"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a folder like that of the repository."""
    (tmp_path / "a checkout/constraints").mkdir(parents=True)
    file = tmp_path / "a checkout/constraints/airflow-3.3.txt"
    file.write_text("aiohttp==3.14.5\napache-airflow==3.3.2\n")
    return file.parents[1]


def test_uv_needs_no_constraints_and_is_told_an_environment_that_is_not_active(checkout: Path):
    """Airflow stays as it is, and so does the kind of the installation."""
    common = {**VENV, "airflow": "3.3.2", "has_uv": True}
    plain = Environment(**common).command("s3")
    assert plain == "uv pip install 'airflow-provider-imagetag[s3]' \"apache-airflow==3.3.2\""
    inactive = Environment(**{**common, "is_active": False}).command("s3")
    assert inactive.startswith("uv pip install --python /v/bin/python 'airflow-provider")
    editable = Environment(**common, checkout=checkout, is_editable=True).command("s3")
    assert shlex.split(editable) == [
        *("cd", str(checkout), "&&", "uv", "pip", "install", "-e", ".[s3]"),
        "apache-airflow==3.3.2",
    ]


@pytest.mark.parametrize(
    ("version", "constraints"),
    [("3.3.2", "constraints/airflow-3.3.txt"), ("3.3.0", OFFICIAL)],
)
def test_pip_gets_the_versions_that_fit_to_the_airflow_that_is_there(
    version: str, constraints: str, checkout: Path
):
    """Those of the checkout pin one version of Airflow; for another one Airflow has its own."""
    common = {**VENV, "airflow": version, "has_uv": False}
    words = shlex.split(Environment(**common, checkout=checkout).command("s3"))
    assert words[-5:] == ["install", ".[s3]", f"apache-airflow=={version}", "-c", constraints]
    from_an_index = Environment(**common).command("s3")
    assert from_an_index.endswith(f"-c {OFFICIAL.replace('3.3.0', version)}")


@pytest.mark.parametrize(
    ("origin", "is_checkout", "is_editable"),
    [
        ({"url": "file://{}", "dir_info": {"editable": True}}, True, True),
        ({"url": "file://{}", "dir_info": {}}, True, False),
        ({"url": "file://{}/gone", "dir_info": {}}, False, False),
        ({"url": "https://host.example/a.whl", "archive_info": {}}, False, False),
        (None, False, False),
    ],
)
def test_the_folder_of_an_installation_is_found(
    origin: Any,
    is_checkout: bool,
    is_editable: bool,
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """It is the one that the distribution was installed from, if it is still there."""
    info = tmp_path / "site/airflow_provider_imagetag-9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: airflow-provider-imagetag\nVersion: 9\n")
    if origin is not None:
        folder = str(checkout).replace(" ", "%20")
        (info / "direct_url.json").write_text(
            json.dumps(origin).replace("file://{}", f"file://{folder}")
        )
    monkeypatch.syspath_prepend(str(info.parent))
    found = this_environment()
    assert (found.checkout, found.is_editable) == (checkout if is_checkout else None, is_editable)
    assert (found.airflow, found.executable) == (airflow.__version__, sys.executable)


def test_every_file_of_constraints_is_of_an_airflow_that_it_names():
    """The command looks for the file by the line of Airflow, and for the version in it."""
    for file in (ROOT / "constraints").glob("airflow-*.txt"):
        [pin] = [line for line in file.read_text().split() if line.startswith("apache-airflow==")]
        version = pin.partition("==")[2]
        found = Environment(**VENV, airflow=version, has_uv=False, checkout=ROOT).command("s3")
        assert found.endswith(f"-c constraints/{file.name}")
