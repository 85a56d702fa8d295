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
    """By a fault of its own: another try would fail again."""
    UNFINISHED = "unfinished"
    """By a fault of the service or the network: the next run tries again."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """The state of one image in a store.

    :param version: the version that was labelled; empty if the source has none.
    :param status: how it ended.
    :param has_uri: whether it had a URI; a source may fill in empty URIs later.
    """

    version: str
    status: Status
    has_uri: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """Decides which images are labelled.

    :param retag: when an image that the store holds is labelled again.
    :param retry_failed: whether images that failed by their own fault are tried again.
    """

    retag: Retag = Retag.CHANGED
    retry_failed: bool = False

    def is_pending(self, stored: StoredState | None, *, version: str | None, has_uri: bool) -> bool:
        """Tell whether an image is to be labelled.

        :param stored: its state in the store; None if the store does not hold it.
        :param version: its version now.
        :param has_uri: whether it has a URI now.
        """
        if stored is None or self.retag is Retag.ALWAYS or stored.status is Status.UNFINISHED:
            return True
        if self.retag is Retag.CHANGED and stored.version != (version or ""):
            return True
        if stored.status is Status.FAILED:
            return self.retry_failed or (has_uri and not stored.has_uri)
        return False


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


def parse_rule(retag: str, retry_failed: bool | str) -> Rule:
    """Return the rule that two parameters of the operator describe.

    :raises ConfigurationError: a parameter has a value that is not allowed.
    """
    try:
        choice = Retag(retag)
    except ValueError:
        names = ", ".join(Retag)
        raise ConfigurationError(f"retag must be one of {names}, not {retag!r}.") from None
    if str(retry_failed) not in ("True", "False"):
        raise ConfigurationError(f"retry_failed must be True or False, not {retry_failed!r}.")
    return Rule(choice, str(retry_failed) == "True")
