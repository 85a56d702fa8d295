"""The import rules between folders, and the libraries that the parsing of a DAG must not load."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import airflow
import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = [
    "PIL",
    "aiohttp",
    "boto3",
    "fsspec",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pyarrow",
    "s3fs",
    "sqlalchemy",
]
AIRFLOW_2 = airflow.__version__.startswith("2.")
# Both are lazy; `from airflow import DAG` loads the first on Airflow 2.11.
AIRFLOW_FIRST = "airflow.models.dag" if AIRFLOW_2 else "airflow.sdk"
# The imports of a DAG file with a hook, an operator and a task, before it imports ours.
DAG_FILE = (
    "from airflow import DAG; from airflow.decorators import task; "
    "from airflow.hooks.base import BaseHook; from airflow.models import BaseOperator"
    if AIRFLOW_2
    else "from airflow.sdk import DAG, BaseHook, BaseOperator, task"
)

# In a process of its own: prints the modules that importing each group has loaded. Each group has a
# child, which has imported nothing before but the first module.
PROBE = """
import importlib, json, os, sys
first, *groups = sys.argv[1:]
importlib.import_module(first)
{touch}
before = set(sys.modules)
for group in groups:
    if not os.fork():
        for name in group.split():
            importlib.import_module(name)
        print(json.dumps(sorted(set(sys.modules) - before)), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(group + " cannot be imported")
"""

# More would need a reason: a DAG file loads them at each parse.
LINKS = "airflow.models.baseoperatorlink" if AIRFLOW_2 else "airflow.sdk.bases.operatorlink"
MOST_MODULES = 22 if AIRFLOW_2 else 21


def probe(*groups: str, first: str = AIRFLOW_FIRST, touch: str = "") -> dict[str, list[str]]:
    """Return the names of all modules that importing each group of modules after `first` loads."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE.format(touch=touch), first, *groups],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-len(groups) :]
    return dict(zip(groups, map(json.loads, lines), strict=True))


@pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None, reason="import-linter is not installed"
)
def test_imports_run_downwards_only():
    """The contracts of pyproject.toml hold: layers, a core without Airflow, a lone emulator."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


MOST_OWN_IMPORTS = 12
"""Maximum number of modules of ours that one of them imports, anywhere in it."""


def own_imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports: at its top, in functions, or for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module="airflow_imagetag"):
                found |= {f"airflow_imagetag.{one.name}" for one in node.names}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case ast.Import():
                found |= {one.name for one in node.names}
    return {name for name in found if name.partition(".")[0] == "airflow_imagetag"}


def test_no_module_knows_many_others():
    """A module that needs more is two ideas, or decides something that another module owns."""
    files = (ROOT / "airflow_imagetag").rglob("*.py")
    counts = {str(path.relative_to(ROOT)): len(own_imports(path)) for path in files}
    assert {name: count for name, count in counts.items() if count > MOST_OWN_IMPORTS} == {}


PUBLIC_MODULES = (
    "airflow_imagetag.hooks.imagetag",
    "airflow_imagetag.cli.definition",
    "airflow_imagetag.notifications.imagetag",
    "airflow_imagetag.operators.evaluate",
    "airflow_imagetag.operators.imagetag",
    "airflow_imagetag.operators.sync",
    "airflow_imagetag.sensors.imagetag",
    "airflow_imagetag.triggers.imagetag",
    "airflow_imagetag.assets",
    "airflow_imagetag.decorators.imagetag",
    "airflow_imagetag.sources",
    "airflow_imagetag.stores",
    "airflow_imagetag.models",
    "airflow_imagetag.errors",
    "airflow_imagetag.evaluation",
    "airflow_imagetag.frames",
    "airflow_imagetag.services",
    "airflow_imagetag.testing",
    "airflow_imagetag.testing.pytest_plugin",
    "airflow_imagetag.testing.cli",
    "airflow_imagetag.get_provider_info",
    "airflow_imagetag.adapters.connection_form",
)


@pytest.fixture(scope="module")
def loaded_by() -> dict[str, list[str]]:
    """Import each public module by itself."""
    return probe(*PUBLIC_MODULES)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_a_public_module_loads_no_heavy_library(loaded_by, module):
    """Importing a public module after Airflow loads none of the libraries that only a run needs."""
    heavy = [name for name in loaded_by[module] if name.partition(".")[0] in HEAVY]
    assert heavy == []


def test_importing_the_operator_loads_little():
    """A DAG file loads a few modules of the package, and nothing else that it has not loaded.

    Of Airflow it may load the names that every provider takes from there.
    """
    modules = ("airflow_imagetag.operators.imagetag", "airflow_imagetag.sensors.imagetag")
    for loaded in probe(*modules, touch=DAG_FILE).values():
        ours = [name for name in loaded if name.partition(".")[0] == "airflow_imagetag"]
        of_airflow = ("airflow.providers.common", "airflow.sdk.bases.sensor", LINKS)
        others = [name for name in loaded if name not in ours]
        assert [name for name in others if not name.startswith(of_airflow)] == []
        assert len(ours) <= MOST_MODULES


def test_importing_the_hook_loads_no_service():
    """A DAG file that calls the hook in a task, and a webserver's form, need only its class."""
    name = "airflow_imagetag.hooks.imagetag"
    loaded = probe(name, touch=DAG_FILE)[name]
    ours = [name for name in loaded if name.partition(".")[0] == "airflow_imagetag"]
    assert len(ours) <= 10
    layers = {name.split(".")[1] for name in ours if "." in name}
    assert layers == {"adapters", "backends", "errors", "hooks"}


def test_a_triggerer_loads_little_on_its_event_loop():
    """The trigger's module leaves the account, the query and the waiting to a thread."""
    loaded = probe("airflow_imagetag.triggers.imagetag", touch=DAG_FILE)
    ours = [
        name
        for name in loaded["airflow_imagetag.triggers.imagetag"]
        if name.partition(".")[0] == "airflow_imagetag"
    ]
    assert len(ours) <= 20
    layers = {name.split(".")[1] for name in ours if "." in name}
    assert layers.isdisjoint({"hooks", "services", "selection", "sources", "stores"})


def test_the_linter_bans_the_heavy_libraries():
    """A heavy library that the probe looks for is also refused by the linter at module level."""
    banned = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]
    assert set(HEAVY) <= set(banned)


def test_provider_info_imports_nothing_but_typing():
    """Airflow reads every provider's description at start-up, so ours loads nothing else."""
    module = "airflow_imagetag.get_provider_info"
    new = probe(module, first="typing")[module]
    assert [name for name in new if name != "__future__"] == [
        "airflow_imagetag",
        "airflow_imagetag.get_provider_info",
    ]
