"""The tree of errors is the one that its docstring draws."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from airflow_imagetag import errors
from airflow_imagetag.errors import Billing, Decision, ImageTagError

LINE = re.compile(
    r"    (?P<bars>(?:\|   |    )*)(?P<branch>\|-- |`-- )?(?P<name>\w+Error)"
    r"(?: +(?P<decision>STOP|RECORD|RETRY))?(?: {2,}(?P<text>.+))?"
)
CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, ImageTagError)
]
BY_CLASS = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Return each name that the docstring draws, with its parent and the decision beside it."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    for line in lines:
        match = LINE.fullmatch(line)
        assert match, f"cannot read the line {line!r}"
        depth = len(match["bars"]) // 4 + 1 if match["branch"] else 0
        tree[match["name"]] = (path[depth - 1] if depth else None, match["decision"])
        path = [*path[:depth], match["name"]]
    return tree


def test_drawn_tree_is_the_real_one():
    """Names and nesting in the docstring are those of the classes, none missing, none invented."""
    real = {
        kind.__name__: None if kind is ImageTagError else kind.__bases__[0].__name__
        for kind in CLASSES
    }
    assert {name: parent for name, (parent, _) in drawn().items()} == real


def test_drawn_decisions_are_the_real_ones():
    """The decision drawn beside a branch holds for every class on it."""
    tree = drawn()
    for kind in CLASSES:
        name: str | None = kind.__name__
        while name is not None and tree[name][1] is None:
            name = tree[name][0]
        expected = "STOP" if name is None else tree[name][1]
        assert kind.decision is Decision[str(expected)], kind


@BY_CLASS
def test_every_class_says_what_it_means(kind):
    """Every class has a docstring of its own, one sentence or more."""
    assert "__doc__" in vars(kind)
    assert inspect.cleandoc(kind.__doc__).partition("\n")[0].endswith(".")


@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
@BY_CLASS
def test_errors_travel_between_processes(kind, copied):
    """An error comes out of pickle as it went in, with every field."""
    error = kind(
        "what happened",
        code="-1102",
        status=200,
        request_id="abc",
        billing=Billing.UNKNOWN,
        retry_after_seconds=2.5,
    )
    error.add_note("a note")
    again = copied(error)
    assert type(again) is kind
    assert str(again) == "what happened"
    assert again.args == error.args
    assert vars(again) == vars(error)


def test_a_plain_error_claims_nothing():
    """Without fields, an error says that nothing was sent and names no code."""
    error = ImageTagError("what happened")
    assert (error.code, error.status, error.request_id) == (None, None, None)
    assert error.billing is Billing.NOT_SENT
    assert error.retry_after_seconds is None


def test_a_configuration_error_is_a_value_error():
    """Code that checks parameters may catch ValueError."""
    assert issubclass(errors.ConfigurationError, ValueError)
