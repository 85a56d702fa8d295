"""Private: the time of a row's change in its database; loaded when a task reads a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from airflow_imagetag.selection.rules import Window

DAY_LENGTH = len("2026-07-01")


@dataclass(frozen=True, slots=True)
class Times:
    """The points in time of a column.

    :param moment: the column as an expression that compares with a point in time.
    :param text: the column as text.
    :param is_unreadable: whether a row has a value that is not a point in time; false in a database
        that compares only values of one type.
    :param dialect: the database, as SQLAlchemy names it.
    """

    moment: Any
    text: Any
    is_unreadable: Any
    dialect: str

    def lie_in(self, window: Window) -> Any:
        """Return the condition that they lie in a window."""
        condition: Any = sa.true()
        if window.after is not None:
            condition &= self._begins_at(window.after)
        if window.before is not None:
            condition &= self.moment <= self._literal(window.before)
        return condition

    def _begins_at(self, after: datetime) -> Any:
        """Return the condition of the earlier end, at the precision of each value.

        A value without a finer precision stands for all of its day, second or millisecond.
        """
        condition = self.moment >= self._literal(after)
        milliseconds = after.microsecond // 1000 * 1000
        for beginning in (after.replace(microsecond=0), after.replace(microsecond=milliseconds)):
            if beginning != after:
                condition |= self.moment == self._literal(beginning)
        day = after.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        # By its text, since the types of a query's columns are unknown.
        is_day = sa.func.length(self.text) <= DAY_LENGTH
        return condition | ((self.moment == self._literal(day)) & is_day)

    def _literal(self, moment: datetime) -> Any:
        if self.dialect == "postgresql":
            return sa.literal(moment, sa.DateTime(timezone=True))
        # The others keep UTC without a zone, as the session is set to.
        value = sa.literal(moment.astimezone(UTC).replace(tzinfo=None), sa.DateTime())
        return sa.func.julianday(value, type_=sa.Float) if self.dialect == "sqlite" else value


def times_of(column: Any, dialect: str) -> Times:
    """Return the points in time of a column.

    SQLite keeps them as texts of several forms, and MySQL compares any text without an error.

    :param dialect: the database, as SQLAlchemy names it.
    """
    text = sa.cast(column, sa.String)
    if dialect == "sqlite":
        value: Any = sa.func.julianday(column, type_=sa.Float)
    elif dialect in ("mysql", "mariadb"):
        value = sa.cast(column, mysql.DATETIME(fsp=6))
    else:
        return Times(column, text, sa.false(), dialect)
    # Both would take a plain number for some time.
    moment = sa.case((text.like("____-__-__%"), value), else_=sa.null())
    return Times(moment, text, (sa.func.trim(text) != "") & moment.is_(None), dialect)
