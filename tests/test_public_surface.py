"""The public surface: exports change only on purpose, and every other module says "Private"."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import FunctionType

import pytest
from surface import FILE, OLD_PATHS, PACKAGE, PUBLIC_MODULES, described, written

ROOT = Path(__file__).resolve().parents[1]
REGENERATE = "If the change is meant, run: python tests/surface.py"


def module_names() -> list[str]:
    """Return the names of all modules of the package, by their files."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / PACKAGE).rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def first_line(name: str) -> str:
    """Return the first line of a module's docstring, without importing it."""
    path = ROOT / Path(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


def ancestors(name: str) -> list[str]:
    """Return a module and the packages that it is in, but for the outermost."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(2, len(parts) + 1)]


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_a_public_module_exports_the_names_and_signatures_of_the_file(name):
    """``public_surface.txt`` holds what each public module exports."""
    assert described(name) == written().get(name), REGENERATE


def test_the_file_has_the_public_modules_and_no_others():
    """``public_surface.txt`` has a section for each public module."""
    assert sorted(written()) == sorted(PUBLIC_MODULES), f"{FILE}: {REGENERATE}"


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_exports_are_documented(name):
    """A public module and each class and function that it exports have a docstring."""
    module = importlib.import_module(name)
    exports = [getattr(module, export) for export in module.__all__]
    assert module.__doc__
    assert [
        value for value in exports if isinstance(value, type | FunctionType) and not value.__doc__
    ] == []


def test_every_other_module_says_that_it_is_private():
    """The docstring of a module that is not public, or of a package around it, says "Private"."""
    public = set(PUBLIC_MODULES)
    # A package around a public module is a folder of public and private ones.
    exempt = {package for name in public for package in ancestors(name)[:-1]} | public
    unmarked = [
        name
        for name in module_names()
        if name not in exempt
        and not name.startswith(OLD_PATHS)
        and not any(map(is_private, set(ancestors(name)) - exempt))
    ]
    assert unmarked == []


def is_private(name: str) -> bool:
    """Tell whether a module says by its name or its docstring that it is private."""
    return name.rpartition(".")[2].startswith("_") or first_line(name).startswith("Private")
