"""Parse numbers that may come from a template, a connection's extra or a DAG file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from airflow_imagetag.errors import ConfigurationError

_MISSING = ("", "None")
"""Texts that a template of a missing parameter renders to."""


@dataclass(frozen=True, slots=True)
class NumberRule:
    """The range of a parameter, and how an error message states it.

    :param expected: completes the sentence "<name> must be ...".
    :param minimum: smallest value allowed; None for no bound.
    :param above: exclusive lower bound; None for no bound.
    :param maximum: largest value allowed; None for no bound.
    :param is_whole: only whole numbers are allowed.
    """

    expected: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    is_whole: bool = False

    def parse(self, name: str, value: Any) -> float | None:
        """Return the number; None for None, an empty text or the text ``None``.

        :param name: names the parameter in the error message.
        :raises ConfigurationError: the value is not a number, or is out of range.
        """
        if value is None or (isinstance(value, str) and value.strip() in _MISSING):
            return None
        number = _as_float(value)
        if not self._allows(number):
            raise ConfigurationError(f"{name} must be {self.expected}, not {value!r}.")
        return number

    def parse_whole(self, name: str, value: Any) -> int | None:
        """Return the number as ``parse`` does, as an int.

        :raises ConfigurationError: the value is not a number, or is out of range.
        """
        number = self.parse(name, value)
        return None if number is None else int(number)

    def require(self, name: str, value: Any) -> float:
        """Return the number; a missing value is an error.

        :raises ConfigurationError: the value is missing, not a number, or out of range.
        """
        number = self.parse(name, value)
        if number is None:
            raise ConfigurationError(f"{name} must be {self.expected}, not {value!r}.")
        return number

    def require_whole(self, name: str, value: Any) -> int:
        """Return the number as ``require`` does, as an int.

        :raises ConfigurationError: the value is missing, not a number, or out of range.
        """
        return int(self.require(name, value))

    def _allows(self, number: float) -> bool:
        if not math.isfinite(number) or (self.is_whole and number != math.floor(number)):
            return False
        if self.above is not None and not number > self.above:
            return False
        if self.minimum is not None and number < self.minimum:
            return False
        return self.maximum is None or number <= self.maximum


SECONDS = NumberRule("a number of seconds from 0", minimum=0)
"""The range of a pause."""


def _as_float(value: Any) -> float:
    # True would pass for 1.
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
