"""The public names of sources and stores: complete, documented, loaded only when they are used."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from foreign import code_of

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGES = {"sources": "adding-a-source.md", "stores": "adding-a-store.md"}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_public_name_can_be_imported_and_has_a_reference(name: str):
    """The list of names is complete for authors of sources and stores."""
    module = importlib.import_module(f"airflow_imagetag.{name}")
    text = (REFERENCE / f"{name}.md").read_text()
    for public in module.__all__:
        assert getattr(module, public) is not None
        assert f"airflow_imagetag.{name}.{public}\n" in text, public
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        _ = module.Missing


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_pages_import_only_public_modules(name: str):
    """A source or store of another package needs nothing that is private."""
    public = {"errors", "frames", "models", "operators.imagetag", "sources", "stores"}
    for code in code_of(PAGES[name]):
        lines = [line for line in code.splitlines() if line.startswith("from airflow_imagetag.")]
        assert {line.split()[1].removeprefix("airflow_imagetag.") for line in lines} <= public


def loaded_by(statement: str) -> set[str]:
    """Return the modules of this package that a statement loads in a process of its own."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return {module for module in modules if module.startswith("airflow_imagetag.")}


@pytest.mark.parametrize(
    ("statement", "unused"),
    [
        ("from airflow_imagetag.stores import ParquetLabelStore", {"stores.sql"}),
        ("from airflow_imagetag.stores import LabelStore", {"stores.sql", "stores.parquet"}),
        ("from airflow_imagetag.sources import SqlImages", {"sources.object_storage"}),
        (
            "from airflow_imagetag.sources import ImageSource",
            {"sources.sql", "sources.object_storage"},
        ),
    ],
)
def test_a_dag_file_loads_only_the_modules_that_it_uses(statement: str, unused: set[str]):
    """Parsing stays cheap."""
    loaded = loaded_by(statement)
    assert not loaded & {f"airflow_imagetag.{module}" for module in unused}
    libraries = {"stores.sql_tables", "stores.parquet_dataset", "sources.sql_reader"}
    assert not loaded & {f"airflow_imagetag.{module}" for module in libraries}
