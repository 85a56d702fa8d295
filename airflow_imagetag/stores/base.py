"""Private: the contract of a label store."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.descriptions import Description
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.rules import Condition, Retag, Rule, StoredState

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.adapters.airflow_sdk import Asset
    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.selection.missing import HeldImage
    from airflow_imagetag.stores.browsing import StoreBrowser
    from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope
    from airflow_imagetag.stores.stored_rows import StoredRows

__all__ = [
    "DEFAULT_BATCH",
    "DEFAULT_FRAME_ROWS",
    "BatchBounds",
    "LabelStore",
    "OpenStore",
    "StoreMode",
    "UnlabelledCounts",
    "as_store",
]

DEFAULT_FRAME_ROWS = 50_000
"""Approximate number of rows in a frame of labels."""


class StoreMode(enum.Enum):
    """The purpose for which a store is opened."""

    READ = "read"
    """For look-ups: nothing is created, a store that does not exist holds nothing, and a failure is
    raised without a retry."""
    WRITE = "write"
    """For a run: the store is created if it does not exist."""


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


class LabelStore(Description):
    """Where labels are kept. A store is a description: it connects to nothing until it is opened.

    A subclass is a dataclass of plain values. Airflow renders the fields that ``template_fields``
    names and shows the values that ``serialize`` returns.
    """

    @abstractmethod
    def open(
        self, api: str, mode: StoreMode = StoreMode.WRITE
    ) -> AbstractContextManager[OpenStore]:
        """Return a context in which the labels of one interface can be read and written.

        :param api: the interface that labels the images, such as ``DetectLabelPro``.
        :param mode: read or write.
        :raises ConfigurationError: the place cannot be used, or holds something else.
        :raises StorageError: the place cannot be reached.
        """

    @abstractmethod
    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield the labels of all interfaces as frames, bounded in memory.

        :param frame_rows: approximate number of rows in a frame.
        :param originals: add the column ``original_label``: the service's own name of a label that
            was renamed, missing for the others.
        """

    def held(self, *, api: str | None = None) -> Iterator[Collection[HeldImage]]:
        """Yield the images that the store holds, some at a time.

        :param api: only those of this interface; None for all.
        :raises ConfigurationError: the store cannot tell them.
        """
        del api
        raise self._cannot("list its images", "held")

    def mark(
        self, keys: Iterable[str], *, missing_since: datetime | None, api: str | None = None
    ) -> int:
        """Mark images as missing from their source, or take the mark away; their labels stay.

        An image that is labelled anew loses the mark.

        :param keys: keys of images; those that the store does not hold are left out.
        :param missing_since: the time, with a zone; None takes the mark away.
        :param api: only images of this interface; None for all.
        :return: the number of images that were changed.
        :raises ConfigurationError: the store has no marks.
        :raises StoreError: the store failed for too long.
        """
        del keys, missing_since, api
        raise self._cannot("mark images as missing", "mark")

    def delete(self, keys: Iterable[str], *, api: str | None = None) -> int:
        """Delete images with their labels.

        A deleted image is new if its source still has it, and is paid for again.

        :param keys: keys of images; those that the store does not hold are left out.
        :param api: only images of this interface; None for all.
        :return: the number of images that were deleted; one that several interfaces have labelled
            counts for each.
        :raises ConfigurationError: the store cannot delete images.
        :raises StoreError: the store failed for too long.
        """
        del keys, api
        raise self._cannot("delete images", "delete")

    def _cannot(self, what: str, method: str) -> ConfigurationError:
        return ConfigurationError(
            f"{type(self).__name__} cannot {what}. Implement its method {method!r}, or use another "
            "store."
        )

    def dataset_refs(self) -> Mapping[str, DatasetRef]:
        """Return the places of ``labels`` and ``images`` for lineage; none if not known."""
        return {}

    def images(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the images of all interfaces as frames with the columns of ``IMAGE_COLUMNS``.

        The report and the pages need it.

        :param frame_rows: approximate number of rows in a frame.
        :raises ConfigurationError: the store does not tell its images.
        """
        del frame_rows
        raise ConfigurationError(
            f"{type(self).__name__} does not tell its images. Implement images(), or use "
            "SqlLabelStore or ParquetLabelStore."
        )

    def report(
        self,
        path: str,
        *,
        max_images: int = 200,
        max_megabytes: float = 8.0,
        language: str = "en",
    ) -> None:
        """Write one HTML file with charts, labels, failures and small pictures of the store.

        The file needs no server and no network: all that it shows is in it.

        :param path: the file: a local path, or a URI such as ``s3://aws_default@lake/report.html``.
        :param max_images: maximum number of images that are shown, from 0.
        :param max_megabytes: maximum size of all small pictures together.
        :param language: ``en`` or ``zh``.
        :raises ConfigurationError: a parameter or the path is wrong, Jinja2 is missing, or the
            store does not tell its images.
        :raises StorageError: the store cannot be read, or the file cannot be written.
        """
        # The report is made of layers above this one, so it is looked up when it is asked for.
        report = import_module("airflow_imagetag.ui.report")
        report.write_report(
            self, path, max_images=max_images, max_megabytes=max_megabytes, language=language
        )

    def _browse(self) -> AbstractContextManager[StoreBrowser] | None:
        """Return a context in which pages query the store itself; None if they need a copy."""
        return None

    def _stored_rows(self) -> AbstractContextManager[StoredRows] | None:
        """Return a context with the rows for a copy; None if its frames tell them."""
        return None

    def runs(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the runs that wrote to the store as frames, in the order of their starts.

        :param frame_rows: approximate number of rows in a frame.
        :raises ConfigurationError: the store keeps no runs.
        """
        del frame_rows
        raise self._cannot("tell its runs", "runs")

    def upgrade(self) -> list[str]:
        """Bring a store of an earlier version to the form of this one, and return the changes.

        A run does so by itself, but for what it does not need.

        :return: sentences; empty if nothing was to be changed.
        :raises ConfigurationError: the place cannot be used, or refuses a change.
        """
        return []

    @property
    @abstractmethod
    def asset_uri(self) -> str:
        """URI of the store as an asset: the same for the same place, without a secret."""

    @property
    def asset(self) -> Asset:
        """The store as an asset, for ``schedule=[store.asset]``; a dataset on Airflow 2.

        :raises ConfigurationError: a template in the store's fields is not rendered yet.
        """
        from airflow_imagetag.adapters.airflow_sdk import Asset

        if self.is_template:
            raise ConfigurationError(
                f"{self!r} is known only when its templates are rendered, and an asset must be "
                "known when the DAG is parsed. Use a store without templates."
            )
        return Asset(self.asset_uri)


def as_store(store: Any) -> LabelStore | None:
    """Return the parameter ``store``.

    :raises ConfigurationError: the value is not a store.
    """
    if not isinstance(store, LabelStore | None):
        raise ConfigurationError(
            "store must be a store of labels, such as SqlLabelStore or ParquetLabelStore, not a "
            f"{type(store).__name__}."
        )
    return store
