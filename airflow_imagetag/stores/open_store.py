"""Private: the contract of a label store while a task uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.rules import Condition, Retag, Rule, StoredState

if TYPE_CHECKING:
    from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope

__all__ = ["DEFAULT_BATCH", "BatchBounds", "OpenStore", "UnlabelledCounts"]


@dataclass(frozen=True, slots=True)
class UnlabelledCounts:
    """The images of one interface whose last try failed by a fault that may pass.

    :param waiting: images that are tried again, those that are due included.
    :param due: images whose next try is now or earlier.
    :param gave_up: images that are not tried again.
    :param next_try_at: earliest time of a later try, with a zone; None for none.
    """

    waiting: int = 0
    due: int = 0
    gave_up: int = 0
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BatchBounds:
    """When finished images are written, if the task does not say.

    :param images: number of images that are written together.
    :param seconds: maximum wait of a finished image before it is written.
    """

    images: int = 200
    seconds: float = 2.0


DEFAULT_BATCH = BatchBounds()
"""Bounds of a batch where a statement takes milliseconds."""


class OpenStore(ABC):
    """A store while a task uses it, bound to one interface (``api``).

    Its methods block. Up to three threads call them at once: one looks keys up, one looks answers
    up, and one writes.
    """

    @property
    def batch(self) -> BatchBounds:
        """Bounds of a batch, for a task that names none.

        What a killed task has finished and not written is labelled, and paid for, once more.
        """
        return DEFAULT_BATCH

    @abstractmethod
    def refresh(self) -> None:
        """Take note of the rows that other writers have added since the store was opened.

        A sensor calls it before each query of a store that it keeps open.
        """

    @abstractmethod
    def release_connections(self) -> None:
        """Close idle connections; the next call opens them again.

        A sensor calls it after each query.
        """

    @abstractmethod
    def check_writable(self, *, originals: bool = False) -> None:
        """Check that the store accepts labels, before anything is paid for.

        :param originals: a label map renames labels, so their original names are written, too.
        :raises ConfigurationError: the store does not accept them.
        """

    @abstractmethod
    def known(self, keys: Collection[str]) -> Mapping[str, StoredState]:
        """Return the state of the images with these keys; a key that is not held is left out.

        :param keys: keys of images, a few thousand at most.
        :raises StorageError: in read mode, the store cannot be reached at the moment.
        :raises StoreError: the store failed for too long.
        """

    @property
    def database(self) -> str | None:
        """Id of the connection whose database holds the store; None for another kind of store.

        A source in the same database is compared with the store by the database itself.
        """
        return None

    def condition(self, rule: Rule) -> Condition | None:
        """Return the rule as a condition of a statement in the store's database, if it has one.

        The condition takes SQLAlchemy expressions of the texts of key, version and URI, and returns
        an expression. It selects the images for which ``rule.is_pending`` is true, and no others: a
        source may stop after ``limit`` images that meet it. The expression of the URI is None for a
        source of bytes.

        :param rule: decides which images are new.
        """
        del rule
        return None

    def may_be_due(self, rule: Rule) -> bool:
        """Tell whether some stored image may be due by the rule; True if that is unknown.

        The source is not read for images that are due where none is.
        """
        return rule.retag is not Retag.ALWAYS

    def unlabelled(self, now: datetime) -> UnlabelledCounts | None:
        """Return the number of images that wait or were given up; None if counting is costly.

        :param now: the time, with a zone.
        :raises StoreError: the store failed for too long.
        """
        del now
        return None

    @abstractmethod
    def answers(self, content_sha256: Collection[str]) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest.

        Answers are results, and failures that are final. Labels that were renamed carry the
        service's own names.

        :param content_sha256: digests of the bytes, in hex, a few hundred at most.
        :raises StoreError: the store failed for too long.
        """

    @abstractmethod
    def write(self, outcomes: Sequence[TagResult | Failure]) -> None:
        """Write a batch, all of it or nothing; writing the same batch again changes nothing.

        The labels of an image replace earlier ones, and so does a failure that is final. A failure
        that is not final leaves an earlier answer for the same version as it is. For a new version
        it becomes the state of the image (``waiting``, or ``gave_up``), with its ``tries``,
        ``first_failed_at`` and ``next_try_at``; the labels of the earlier version stay. A failure
        that is not of the image itself (``is_of_image`` is False) is not written.

        :param outcomes: outcomes of images; the last one of a key counts.
        :raises StoreError: the store failed for too long.
        """

    @property
    def keeps_runs(self) -> bool:
        """Whether the store keeps a record of each run."""
        return False

    def record_run(self, run: RunRecord) -> None:
        """Write the record of a run, or overwrite the one with its ``id``.

        A run calls it at its start, every few seconds and at its end, from a thread of its own.

        :raises StoreError: the store failed.
        """
        del run

    def unended_runs(self) -> Sequence[RunRecord]:
        """Return the records without an end: runs in progress, and runs that were killed.

        :raises StoreError: the store failed.
        """
        return ()

    def spending(self, scope: SpendingScope) -> Spending:
        """Return the calls and the cost of the runs of this interface.

        It counts every record that was written before the call, also by other processes.

        :param scope: the runs that count.
        :raises StoreError: the store failed.
        """
        from airflow_imagetag.stores.runs import Spending

        del scope
        return Spending()
