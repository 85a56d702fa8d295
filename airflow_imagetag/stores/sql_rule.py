"""Private: the rule of new and due images in SQL; loaded by a running task."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects import Dialect
from airflow_imagetag.selection.rules import SETTLED, UNFINISHED, Need, Retag, Rule, Status
from airflow_imagetag.stores.sql_schema import NEXT_TRY_AT

WAITING = (Status.WAITING.value, UNFINISHED)


def is_due(images: sa.Table, now: datetime | None) -> Any:
    """Return the condition that the next try of a waiting image has come.

    :param images: the images table; one of version 0.1.0 has no times, so all images are due.
    :param now: the time, with a zone; None takes all images as due.
    """
    if now is None or NEXT_TRY_AT not in images.c:
        return sa.true()
    next_try_at = images.c[NEXT_TRY_AT]
    return next_try_at.is_(None) | (next_try_at <= now)


@dataclass(frozen=True, slots=True)
class SqlRule:
    """``Rule.need_of`` for the rows of a statement.

    :param images: the images table.
    :param rule: the rule.
    :param same_image: the condition that a row of the table is that of the image.
    :param same_version: the condition that its version is that of the image.
    :param uri: expression of the image's URI; None for a source of bytes.
    :param dialect: the database.
    """

    images: sa.Table
    rule: Rule
    same_image: Any
    same_version: Any
    uri: Any
    dialect: Dialect

    def condition(self, need: Need) -> Any:
        """Return the condition that an image has this need."""
        if need is Need.NEW:
            if self.rule.only_failed:
                return sa.false()
            if self.rule.retag is Retag.ALWAYS:
                return sa.true()
            return ~self._exists(self._is_not_new)
        if self.rule.only_failed:
            return self._exists(self.images.c.status != Status.TAGGED.value)
        if self.rule.retag is Retag.ALWAYS:
            return sa.false()
        return self._exists(self._is_due)

    def _exists(self, condition: Any) -> Any:
        return sa.exists().where(self.same_image & condition)

    @property
    def _is_waiting(self) -> Any:
        return self.images.c.status.in_(WAITING)

    @property
    def _is_settled(self) -> Any:
        return self.images.c.status.in_([status.value for status in SETTLED])

    @property
    def _is_filled_in(self) -> Any:
        """The condition that an image failed for want of a URI and has one now."""
        if self.uri is None:
            return sa.false()
        is_given = ~self.dialect.is_blank(self.uri)
        return self._is_settled & self.images.c.image_uri.is_(None) & is_given

    @property
    def _is_not_new(self) -> Any:
        held = self.same_version
        if self.rule.retag is Retag.NEVER:
            held = held | ~self._is_waiting
        return held & ~self._is_filled_in

    @property
    def _is_due(self) -> Any:
        due = self._is_waiting & self.same_version & is_due(self.images, self.rule.now)
        if not self.rule.retry_failed:
            return due
        settled = self._is_settled
        if self.rule.retag is Retag.CHANGED:
            settled &= self.same_version
        return due | (settled & ~self._is_filled_in)
