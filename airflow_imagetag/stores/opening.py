"""Private: opens any store for its pages."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore
    from airflow_imagetag.stores.browsing import CopyProgress, StoreBrowser


def is_copied(store: LabelStore) -> bool:
    """Tell whether pages need a copy of the store, which takes time and shows an earlier state."""
    return store._browse() is None


def open_browser(
    store: LabelStore, progress: CopyProgress | None = None
) -> AbstractContextManager[StoreBrowser]:
    """Return a context in which the pages of a store query it, or a copy of it.

    :param progress: is told how far the copy is.
    :raises ConfigurationError: the store cannot be used, or does not tell its images.
    :raises StorageError: the store cannot be read.
    """
    if (browser := store._browse()) is not None:
        return browser
    from airflow_imagetag.stores.sqlite_copy import open_copy

    return open_copy(store, progress)


def missing_place(store: LabelStore) -> str | None:
    """Return the table or the dataset that the first run has yet to create; None if it exists.

    A store of another package need not tell.

    :raises ConfigurationError: the place cannot be used.
    :raises StorageError: the place cannot be reached.
    """
    return store._missing_place()
