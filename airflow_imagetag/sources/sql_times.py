"""Private: the time of a row's change in its database; loaded when a task reads a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects import Dialect, Moments
from airflow_imagetag.selection.rules import Window

DAY_LENGTH = len("2026-07-01")


@dataclass(frozen=True, slots=True)
class Times:
    """The points in time of a column.

    :param moments: the column as its database reads it.
    :param dialect: the database.
    """

    moments: Moments
    dialect: Dialect

    @property
    def is_unreadable(self) -> Any:
        """Whether a row has a value that is not a point in time."""
        return self.moments.is_unreadable

    def lie_in(self, window: Window) -> Any:
        """Return the condition that they lie in a window."""
        condition: Any = sa.true()
        if window.after is not None:
            condition &= self._begins_at(window.after)
        if window.before is not None:
            condition &= self.moments.value <= self.dialect.moment(window.before)
        return condition

    def _begins_at(self, after: datetime) -> Any:
        """Return the condition of the earlier end, at the precision of each value.

        A value without a finer precision stands for all of its day, second or millisecond.
        """
        condition = self.moments.value >= self.dialect.moment(after)
        milliseconds = after.microsecond // 1000 * 1000
        for beginning in (after.replace(microsecond=0), after.replace(microsecond=milliseconds)):
            if beginning != after:
                condition |= self.moments.value == self.dialect.moment(beginning)
        day = after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        # By its text, since the types of a query's columns are unknown.
        is_day = sa.func.length(self.moments.text) <= DAY_LENGTH
        return condition | ((self.moments.value == self.dialect.moment(day)) & is_day)


def times_of(column: Any, dialect: Dialect) -> Times:
    """Return the points in time of a column.

    :param dialect: the database.
    """
    return Times(dialect.moments(column), dialect)
