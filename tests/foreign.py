"""Sources and stores of other packages: modules made of the code on the pages about adding one."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import airflow
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
AIRFLOW_2 = airflow.__version__.startswith("2.")


def code_of(page: str) -> list[str]:
    """Return the blocks of Python of a page, for the installed Airflow."""
    text = (DOCS / page).read_text()
    if AIRFLOW_2:
        text = text.replace(
            "from airflow.sdk import", "from airflow.providers.common.compat.sdk import"
        )
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def install(folder: Path, patch: pytest.MonkeyPatch, name: str, *code: str) -> ModuleType:
    """Make a module of blocks of code, as another package would have it, and import it.

    :param folder: receives the module.
    :param name: name of the module.
    :param code: the blocks, which share their names.
    """
    (folder / f"{name}.py").write_text("\n\n".join(code))
    patch.syspath_prepend(str(folder))
    # The folder of another test is gone.
    patch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)
