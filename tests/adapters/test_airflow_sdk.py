"""The names of Airflow: found without the SDK of common-compat, which older releases lack."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_imagetag.adapters import airflow_sdk
from airflow_imagetag.backends.airflow_versions import check_frames_of
from airflow_imagetag.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: the modules that common-compat 1.6 does not have are missing.
WITHOUT_SDK = """
import importlib, sys

compat = "airflow.providers.common.compat"
for name in ("sdk", "triggers", "connection", "_compat_utils"):
    sys.modules[f"{compat}.{name}"] = None
sdk = importlib.import_module("airflow_imagetag.adapters.airflow_sdk")
for name in sdk.PLACES:
    getattr(sdk, name)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""

MODULES = [
    "airflow_imagetag.assets",
    "airflow_imagetag.decorators.imagetag",
    "airflow_imagetag.hooks.imagetag",
    "airflow_imagetag.operators.imagetag",
    "airflow_imagetag.sensors.imagetag",
    "airflow_imagetag.testing",
    "airflow_imagetag.triggers.imagetag",
]


def test_the_package_needs_no_sdk_of_common_compat():
    """Each name is found in Airflow itself, and each public module imports."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_SDK, *MODULES],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_listed_is_no_attribute():
    """A misspelt name is an error of the import, and says which one."""
    with pytest.raises(AttributeError, match="BaseOperater"):
        _ = airflow_sdk.BaseOperater


def test_one_module_imports_common_compat():
    """Every other one would fail with the releases that older constraints of Airflow name."""
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "airflow_imagetag").rglob("*.py"))
        if re.search(
            r"providers\.common\.compat(\.(sdk|triggers|connection|version_compat)| )",
            path.read_text(encoding="utf-8"),
        )
    ]
    assert found == ["airflow_imagetag/adapters/airflow_sdk.py"], (
        "Import names of Airflow from airflow_imagetag.adapters.airflow_sdk, and add the missing "
        "ones to its PLACES."
    )


@pytest.mark.parametrize(
    ("airflow", "pandas", "fits"),
    [
        ((2, 11), "2.3.3", True),
        ((2, 11), "3.0.0", False),
        ((3, 0), "2.1.4", True),
        ((3, 0), "3.1.1", False),
        ((3, 2), "3.0.0", False),
        ((3, 3), "3.1.1", True),
        ((3, 10), "3.1.1", True),
    ],
)
def test_frames_of_pandas_3_need_airflow_3_3(airflow, pandas, fits):
    """Before Airflow 3.3 an XCom cannot keep them, which is said before anything is paid for."""
    if fits:
        check_frames_of(airflow, pandas)
        return
    with pytest.raises(ConfigurationError, match=r"pandas<3.*Airflow 3\.3"):
        check_frames_of(airflow, pandas)
