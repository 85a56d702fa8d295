"""The public surface: the modules that users may import, and a text of all that they export.

``python tests/surface.py`` writes the text to ``public_surface.txt``.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "airflow_imagetag"
PUBLIC_MODULES = (
    "airflow_imagetag",
    "airflow_imagetag.assets",
    "airflow_imagetag.decorators.imagetag",
    "airflow_imagetag.errors",
    "airflow_imagetag.evaluation",
    "airflow_imagetag.frames",
    "airflow_imagetag.hooks.imagetag",
    "airflow_imagetag.links.imagetag",
    "airflow_imagetag.models",
    "airflow_imagetag.notifications.imagetag",
    "airflow_imagetag.operators.evaluate",
    "airflow_imagetag.operators.imagetag",
    "airflow_imagetag.operators.sync",
    "airflow_imagetag.sensors.imagetag",
    "airflow_imagetag.service.signature",
    "airflow_imagetag.services",
    "airflow_imagetag.sources",
    "airflow_imagetag.stores",
    "airflow_imagetag.testing",
    "airflow_imagetag.testing.cli",
    "airflow_imagetag.testing.pytest_plugin",
    "airflow_imagetag.triggers.imagetag",
)
OLD_PATHS = ("airflow_imagetag.pending", "airflow_imagetag.service", "airflow_imagetag.shards")
"""Import paths of version 0.1.0, which only re-export; ``test_compatibility.py`` holds them."""

FILE = Path(__file__).with_name("public_surface.txt")
INDENT = "    "
MAX_SIGNATURE = 80
"""Longer ones have a line for each parameter."""


def described(module_name: str) -> str:
    """Return the exports of a module as text, one line each, with the parts of classes below."""
    module = importlib.import_module(module_name)
    lines = [f"== {module_name}"]
    for name in sorted(module.__all__):
        lines += _lines_of(name, getattr(module, name))
    return "\n".join(lines) + "\n"


def written() -> dict[str, str]:
    """Return the texts of the file by module."""
    sections = re.split(r"\n(?=== )", FILE.read_text(encoding="utf-8"))
    return {text.splitlines()[0].removeprefix("== "): text.rstrip() + "\n" for text in sections}


def _lines_of(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield f"module {name}"
        for each in sorted(value.__all__):
            for line in _lines_of(each, getattr(value, each)):
                yield INDENT + line
    elif inspect.isclass(value):
        yield from _class_line(name, value).splitlines()
        for text in sorted(_members(value)):
            yield from _indented(text)
    elif callable(value) and inspect.isfunction(inspect.unwrap(value)):
        yield from _function(name, value).splitlines()
    elif name == "__version__":
        yield name
    else:
        yield _constant(name, value)


def _indented(text: str) -> Iterator[str]:
    return (INDENT + line for line in text.splitlines())


def _class_line(name: str, kind: type) -> str:
    bases = [base.__name__ for base in kind.__bases__ if _is_ours(base)]
    suffix = f" of {', '.join(bases)}" if bases else ""
    is_inherited = bases and "__init__" not in vars(kind)
    is_constructed = not issubclass(kind, enum.Enum) and not getattr(kind, "_is_protocol", False)
    signature = _signature(kind) if is_constructed and not is_inherited else "()"
    return f"class {name}{signature.removesuffix('()')}{suffix}"


def _members(kind: type) -> Iterator[str]:
    """Yield the public parts that a class, or a base of this package, defines."""
    if issubclass(kind, enum.Enum):
        yield from (f"{name} = {member.value!r}" for name, member in kind.__members__.items())
        return
    # Airflow replaces the constants of its own classes, and each version does it differently.
    has_constants = all(_is_ours(base) or base.__module__ == "builtins" for base in kind.__mro__)
    seen = set(getattr(kind, "__dataclass_fields__", ()))
    for owner in filter(_is_ours, kind.__mro__):
        for name, value in vars(owner).items():
            if name not in seen and not name.startswith("_"):
                seen.add(name)
                if text := _member(name, value):
                    yield text
                elif has_constants:
                    yield _constant(name, value)
        for name, annotation in inspect.get_annotations(owner).items():
            if name not in seen and not name.startswith("_"):
                seen.add(name)
                yield f"{name}: {annotation}"


def _member(name: str, value: Any) -> str | None:
    """Return the text of a method or a property; None for other members."""
    abstract = "abstract " if getattr(value, "__isabstractmethod__", False) else ""
    if isinstance(value, classmethod | staticmethod):
        return f"{abstract}{type(value).__name__} {_function(name, value.__func__)}"
    if inspect.isfunction(value):
        return abstract + _function(name, value)
    getter = getattr(value, "fget", None) or getattr(value, "func", None)
    if getter is not None:
        return f"{abstract}property {name}: {getter.__annotations__.get('return')}"
    return None


def _constant(name: str, value: Any) -> str:
    return f"{name} = {_value(value)}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == PACKAGE


def _function(name: str, function: Any) -> str:
    function = inspect.unwrap(function)
    word = "async " if inspect.iscoroutinefunction(function) else ""
    signature = inspect.signature(function)
    result = _annotation(signature.return_annotation)
    return f"{word}{name}{_signature(function)} -> {result}"


def _signature(value: Any) -> str:
    parameters = [
        parameter
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    parts: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(_parameter(parameter))
    text = f"({', '.join(parts)})"
    if len(text) <= MAX_SIGNATURE:
        return text
    return "(\n" + "".join(f"{INDENT}{part},\n" for part in parts) + ")"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return text
    return f"{text} = {_value(parameter.default)}"


def _annotation(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


def _value(value: Any) -> str:
    """Return the text of a default or a constant, without the address of an object."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


if __name__ == "__main__":
    FILE.write_text("\n".join(map(described, PUBLIC_MODULES)), encoding="utf-8")
