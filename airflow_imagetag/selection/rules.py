"""Which images are new: the rule that compares a source with the images of a store. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_imagetag.errors import ConfigurationError

Condition = Callable[[Any, Any, Any], Any]
"""The rule as an SQL condition, made from the expressions of an image's key, version and URI."""


class Retag(enum.StrEnum):
    """When an image that the store holds is labelled again."""

    NEVER = "never"
    """Never, even if its version changes."""
    CHANGED = "changed"
    """When its version differs from the stored one."""
    ALWAYS = "always"
    """In every run, and every run pays."""


class Status(enum.StrEnum):
    """How an image ended, as a store keeps it."""

    TAGGED = "tagged"
    """With an answer, which may hold no labels."""
    FAILED = "failed"
    """By a fault of its bytes or its form: another try would fail again."""
    WAITING = "waiting"
    """By a fault that may pass: it is tried again later."""
    GAVE_UP = "gave_up"
    """By a fault that did not pass for the time after which an image is given up."""

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        # Of version 0.1.0, which tried such images in every run.
        return cls.WAITING if value == UNFINISHED else None


UNFINISHED = "unfinished"
"""Status of a waiting image in a store of version 0.1.0; it has no time of a next try."""

SETTLED = (Status.FAILED, Status.GAVE_UP)
"""Statuses of images without labels that are not tried again by themselves."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """The state of one image in a store.

    :param version: the version that was tried last; empty if the source has none.
    :param status: how it ended.
    :param has_uri: whether it had a URI; a source may fill in empty URIs later.
    :param next_try_at: when a waiting image is tried again, with a zone; None for at once.
    :param tries: number of runs in which this version failed.
    :param first_failed_at: when this version failed first, with a zone; None if it did not.
    """

    version: str
    status: Status
    has_uri: bool = True
    next_try_at: datetime | None = None
    tries: int = 0
    first_failed_at: datetime | None = None


def has_failed_before(stored: StoredState | None, *, version: str | None, has_uri: bool) -> bool:
    """Tell whether an earlier run failed for the image as it is now.

    :param stored: its state in the store; None if the store does not hold it.
    :param version: its version now.
    :param has_uri: whether it has a URI now.
    """
    if stored is None or stored.status is Status.TAGGED:
        return False
    return stored.version == (version or "") and stored.has_uri >= has_uri


class Need(enum.Enum):
    """Why an image is labelled."""

    NEW = "new"
    """It was never tried in this version."""
    DUE = "due"
    """It failed, and the time of its next try has come."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Decides which images are labelled.

    :param retag: when an image that the store holds is labelled again.
    :param retry_failed: whether images that failed for good, or were given up, are tried again.
    :param only_failed: label only images that failed, wait or were given up, whether due or not.
    :param now: the time, with a zone, at which waiting images are due; None takes all as due.
    :param need: only images with this need; None for both.
    """

    retag: Retag = Retag.CHANGED
    retry_failed: bool = False
    only_failed: bool = False
    now: datetime | None = None
    need: Need | None = None

    def is_pending(self, stored: StoredState | None, *, version: str | None, has_uri: bool) -> bool:
        """Tell whether an image is to be labelled.

        :param stored: its state in the store; None if the store does not hold it.
        :param version: its version now.
        :param has_uri: whether it has a URI now.
        """
        found = self.need_of(stored, version=version, has_uri=has_uri)
        return found is not None and self.need in (None, found)

    def need_of(
        self, stored: StoredState | None, *, version: str | None, has_uri: bool
    ) -> Need | None:
        """Return why an image is to be labelled, whatever ``need`` is; None if it is not.

        :param stored: its state in the store; None if the store does not hold it.
        :param version: its version now.
        :param has_uri: whether it has a URI now.
        """
        if self.only_failed:
            has_failed = stored is not None and stored.status is not Status.TAGGED
            return Need.DUE if has_failed else None
        if stored is None or self.retag is Retag.ALWAYS:
            return Need.NEW
        is_changed = stored.version != (version or "")
        if is_changed and (self.retag is Retag.CHANGED or stored.status is Status.WAITING):
            return Need.NEW
        if stored.status in SETTLED:
            if has_uri and not stored.has_uri:
                return Need.NEW
            return Need.DUE if self.retry_failed else None
        return Need.DUE if stored.status is Status.WAITING and self._is_due(stored) else None

    def _is_due(self, stored: StoredState) -> bool:
        return self.now is None or stored.next_try_at is None or stored.next_try_at <= self.now


@dataclass(frozen=True, slots=True)
class Window:
    """A closed interval of time in which an image must have changed.

    :param after: earliest time, with a zone; None for no bound.
    :param before: latest time, with a zone; None for no bound.
    """

    after: datetime | None = None
    before: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        """Tell whether a time, which has a zone, lies in the window."""
        if self.after is not None and moment < self.after:
            return False
        return self.before is None or moment <= self.before


def parse_rule(
    retag: str, retry_failed: bool | str = False, only_failed: bool | str = False
) -> Rule:
    """Return the rule that three parameters of the operator describe.

    :raises ConfigurationError: a parameter has a value that is not allowed.
    """
    try:
        choice = Retag(retag)
    except ValueError:
        names = ", ".join(Retag)
        raise ConfigurationError(f"retag must be one of {names}, not {retag!r}.") from None
    flags = {"retry_failed": retry_failed, "only_failed": only_failed}
    for name, value in flags.items():
        if str(value) not in ("True", "False"):
            raise ConfigurationError(f"{name} must be True or False, not {value!r}.")
    if str(only_failed) == "True" and choice is Retag.ALWAYS:
        raise ConfigurationError(
            "only_failed=True labels no image that has labels, and retag='always' labels all. Use "
            "one of them."
        )
    return Rule(choice, str(retry_failed) == "True", str(only_failed) == "True")
