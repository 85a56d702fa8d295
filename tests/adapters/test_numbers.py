"""Numbers of a template, a connection or a DAG file."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import property_test

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.errors import ConfigurationError

SHARE = NumberRule("a number from 0 to 1", minimum=0, maximum=1)
COUNT = NumberRule("a whole number from 1", minimum=1, is_whole=True)
RATE = NumberRule("a number above 0", above=0)

finite = st.floats(allow_nan=False, allow_infinity=False)


@property_test
@given(finite | st.integers(-(10**9), 10**9))
def test_a_number_and_its_text_are_the_same(number):
    """A template renders to text, and both are accepted or refused alike."""
    for rule in (SHARE, COUNT, RATE):
        results = []
        for value in (number, str(number), f" {number}\n"):
            try:
                results.append(rule.parse("x", value))
            except ConfigurationError:
                results.append("refused")
        assert len(set(results)) == 1
        assert results[0] in (float(number), "refused")


@property_test
@given(finite)
def test_an_accepted_number_is_in_its_range(number):
    """The bounds hold, and a whole number has no fraction."""
    for rule, is_allowed in (
        (SHARE, 0 <= number <= 1),
        (COUNT, number >= 1 and number == math.floor(number)),
        (RATE, number > 0),
    ):
        if is_allowed:
            assert rule.require("x", number) == number
        else:
            with pytest.raises(ConfigurationError, match="x must be a"):
                rule.require("x", number)


@pytest.mark.parametrize("value", [None, "", "  ", "None", " None "])
def test_a_missing_value(value):
    """A template of a missing parameter renders to one of these; a required number is an error."""
    assert SHARE.parse("share", value) is None
    assert COUNT.parse_whole("count", value) is None
    for require in (SHARE.require, COUNT.require_whole):
        with pytest.raises(ConfigurationError, match="share must be a"):
            require("share", value)


@pytest.mark.parametrize(
    "value", [True, False, "nan", "inf", "-inf", math.nan, "1,5", "one", [1], {}, b"1x", 10**400]
)
def test_a_value_that_is_no_number(value):
    """The message names the parameter, the allowed values and the value."""
    with pytest.raises(ConfigurationError, match="share must be a number from 0 to 1, not"):
        SHARE.parse("share", value)


def test_a_whole_number_is_an_int():
    """Also if it arrives as a float or a text."""
    for value in (5, 5.0, "5", "5.0"):
        number = COUNT.require_whole("count", value)
        assert (number, type(number)) == (5, int)
