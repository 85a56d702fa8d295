"""The how-to page agrees with the code."""

from __future__ import annotations

import dataclasses
import re
from inspect import signature
from pathlib import Path

import pytest

from airflow_imagetag.testing import Emulator, Faults, Stats
from airflow_imagetag.testing.faults import GARBAGE_KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def test_every_parameter_fault_and_counter_is_on_the_page():
    """The page names every parameter, fault, counter and attribute."""
    names = [
        *signature(Emulator).parameters,
        *(field.name for field in dataclasses.fields(Faults)),
        *(field.name for field in dataclasses.fields(Stats)),
        *(name for name in vars(Emulator) if not name.startswith("_")),
    ]
    assert [name for name in names if not re.search(rf"\b{name}\b", PAGE)] == []
    assert [kind for kind in GARBAGE_KINDS if f'`"{kind}"`' not in PAGE] == []


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_every_snippet_is_python(snippet):
    """Code on the page compiles."""
    compile(snippet, "docs/emulator.md", "exec")


def test_the_second_example_runs(monkeypatch, capsys):
    """The example of the emulator in code runs."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", "")
    [example] = [
        snippet
        for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if snippet.startswith("import os")
    ]
    exec(example, {})
    assert capsys.readouterr().out == "0 images billed\n"
