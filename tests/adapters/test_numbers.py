"""Numbers from templates, connections and DAG files."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import property_test

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.errors import ConfigurationError

ANY = NumberRule("a number")
SHARE = NumberRule("a number above 0, up to 1", above=0, maximum=1)
COUNT = NumberRule("a whole number from 1", minimum=1, is_whole=True)


@pytest.mark.parametrize("value", [None, "", " ", "None", " None "])
def test_a_missing_value(value: Any):
    """It is None, the empty text or the text that a template renders None to."""
    assert ANY.parse("x", value) is None
    assert COUNT.parse_whole("x", value) is None
    with pytest.raises(ConfigurationError, match=r"^x must be a number, not "):
        ANY.require("x", value)
    with pytest.raises(ConfigurationError, match=r"^x must be a whole number from 1, not "):
        COUNT.require_whole("x", value)


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (0.5, 0.5), ("3", 3), (" 0.5 ", 0.5), ("1e3", 1000), (Decimal("2.5"), 2.5), (-1, -1)],
)
def test_a_number_in_any_form(value: Any, number: float):
    """A number, or its text."""
    assert ANY.parse("x", value) == number
    assert ANY.require("x", value) == number


@pytest.mark.parametrize(
    "value", ["many", "none", "1,5", True, False, [], {}, object, math.nan, math.inf, "nan", "-inf"]
)
def test_no_number(value: Any):
    """Neither text nor a truth value, and no number without an end."""
    with pytest.raises(ConfigurationError, match=r"^requests_per_second must be a number, not "):
        ANY.parse("requests_per_second", value)


def test_a_number_that_is_too_large():
    """An int that no float can hold is out of every range."""
    with pytest.raises(ConfigurationError):
        ANY.parse("x", 10**400)


@pytest.mark.parametrize(
    ("value", "is_allowed"), [(0, False), (0.01, True), (1, True), (1.1, False)]
)
def test_the_bounds_of_a_range(value: float, is_allowed: bool):
    """``above`` excludes its bound, ``maximum`` includes it."""
    if is_allowed:
        assert SHARE.parse("share", value) == value
    else:
        message = rf"^share must be a number above 0, up to 1, not {value}\.$"
        with pytest.raises(ConfigurationError, match=message):
            SHARE.parse("share", value)


@pytest.mark.parametrize("value", [0, -3, 1.5, "2.5"])
def test_a_number_that_is_not_whole_or_too_small(value: Any):
    """The message repeats the value as it came."""
    with pytest.raises(ConfigurationError, match=rf"not {value!r}\.$"):
        COUNT.parse_whole("count", value)


@pytest.mark.parametrize("value", [3, 3.0, "3", "3.0"])
def test_a_whole_number_is_an_int(value: Any):
    """Also of a text or a float."""
    for number in (COUNT.parse_whole("count", value), COUNT.require_whole("count", value)):
        assert (number, type(number)) == (3, int)


@property_test
@given(
    st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.none())),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.booleans(),
)
def test_any_value_is_missing_in_range_or_an_error(value, minimum, maximum, is_whole):
    """No other error escapes, and no number out of range."""
    rule = NumberRule("x", minimum=minimum, maximum=maximum, is_whole=is_whole)
    try:
        number = rule.parse("x", value)
    except ConfigurationError:
        return
    assert number is None or minimum <= number <= maximum
    assert number is None or not is_whole or number == int(number)
