"""Private: the contract of a label store."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.descriptions import Description
from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.adapters.airflow_sdk import Asset
    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.selection.missing import HeldImage
    from airflow_imagetag.stores.browsing import StoreBrowser
    from airflow_imagetag.stores.open_store import OpenStore
    from airflow_imagetag.stores.stored_rows import StoredRows

__all__ = ["DEFAULT_FRAME_ROWS", "LabelStore", "OpenStore", "StoreMode", "as_store"]

DEFAULT_FRAME_ROWS = 50_000
"""Approximate number of rows in a frame of labels."""


def __getattr__(name: str) -> Any:
    # An import path that is kept; the parsing of a DAG file needs no open store.
    if name != "OpenStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("airflow_imagetag.stores.open_store").OpenStore


class StoreMode(enum.Enum):
    """The purpose for which a store is opened."""

    READ = "read"
    """For look-ups: nothing is created, a store that does not exist holds nothing, and a failure is
    raised without a retry."""
    WRITE = "write"
    """For a run: the store is created if it does not exist."""


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

    def _missing_place(self) -> str | None:
        """Return the table or the dataset that the first run has yet to create.

        :return: a noun with its place, for a message; None if it exists, or if that is unknown.
        :raises ConfigurationError: the place cannot be used.
        :raises StorageError: the place cannot be reached.
        """
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
