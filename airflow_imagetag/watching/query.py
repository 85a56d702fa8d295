"""The one query of sensor and trigger: which images are new. Its calls block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TypeVar

from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.errors import UnknownConnectionError
from airflow_imagetag.models import Image
from airflow_imagetag.selection.difference import new_images
from airflow_imagetag.stores.base import LabelStore, StoreMode
from airflow_imagetag.stores.open_store import OpenStore
from airflow_imagetag.watching.condition import WaitCondition

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The images that a query has found.

    :param images: new images, in the order of the source, without their bytes.
    :param is_all: whether there are no more.
    """

    images: tuple[Image, ...]
    is_all: bool


class NewImagesQuery:
    """Queries source and store any number of times; the store stays open between two queries.

    :param condition: the images that are waited for.
    """

    def __init__(self, condition: WaitCondition) -> None:
        self.condition = condition
        # At most one store, which closes with the stack.
        self._open_stores: list[OpenStore] = []
        self._stack = ExitStack()
        # A query that is given up may be closed while its thread is still running it.
        self._lock = threading.Lock()
        self._is_closed = False

    def run(self, now: datetime, *, enough: int) -> QueryResult:
        """Return new images; the source is read no further than needed.

        :param now: the time, with a zone.
        :param enough: maximum number of images.
        :raises ConfigurationError: a parameter or connection is wrong; waiting does not help.
        :raises StorageError: source or store cannot be reached at the moment.
        """
        images = self.read(lambda found: tuple(islice(found, enough)), now, limit=enough)
        return QueryResult(images, is_all=len(images) < enough)

    def read(
        self, take: Callable[[Iterator[Image]], T], now: datetime, *, limit: int | None = None
    ) -> T:
        """Return the result of a function over the new images, which are read as it takes them.

        :param take: reads as many images as it needs.
        :param now: the time, with a zone.
        :param limit: maximum number of images that it takes.
        """
        try:
            with self._lock:
                return self._read(take, now, limit)
        finally:
            # Only now: `close` may have found the lock taken a moment before.
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """Close the store; a query that hangs closes it when it ends."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._open_stores.clear()
                self._stack.close()
            finally:
                self._lock.release()

    def _read(self, take: Callable[[Iterator[Image]], T], now: datetime, limit: int | None) -> T:
        try:
            return take(self._images(now, limit))
        finally:
            # A hundred waiting triggers must not keep a hundred connections.
            for store in self._open_stores:
                store.release_connections()

    def _images(self, now: datetime, limit: int | None) -> Iterator[Image]:
        condition = self.condition
        window = condition.window(now)
        source = condition.source.with_formats(self._target.formats)
        if condition.store is None:
            return source.images(limit=limit, window=window)
        return new_images(
            source,
            self._open(condition.store),
            replace(condition.rule, now=now),
            window=window,
            limit=limit,
        )

    @cached_property
    def _target(self) -> Target:
        return target_of(self.condition.imagetag_conn_id)

    def _open(self, store: LabelStore) -> OpenStore:
        if self._open_stores:
            self._open_stores[0].refresh()
        else:
            opened = self._stack.enter_context(store.open(self._target.api, StoreMode.READ))
            self._open_stores.append(opened)
        return self._open_stores[0]


@dataclass(frozen=True, slots=True)
class Target:
    """The facts of the account that a query needs.

    :param api: the interface, under which a store keeps its labels.
    :param formats: formats of images that it takes, as Pillow names them; None for all.
    """

    api: str
    formats: frozenset[str] | None


def target_of(imagetag_conn_id: str) -> Target:
    """Return the interface of an account.

    If the default connection does not exist, the result is the default interface.

    :raises ConfigurationError: there is no such connection, or a field of it is wrong.
    """
    # Here, in the thread of the query: a triggerer imports this module on its event loop.
    from airflow_imagetag.hooks.imagetag import ImageTagHook
    from airflow_imagetag.services.account import DEFAULT_API, Account
    from airflow_imagetag.services.request_codec import RequestCodec

    try:
        hook = ImageTagHook(imagetag_conn_id)
        return Target(hook.api, hook.limits.formats)
    except UnknownConnectionError:
        if imagetag_conn_id != DEFAULT_CONN_ID:
            raise
        log.warning(
            "There is no connection %r; assuming the interface %s", imagetag_conn_id, DEFAULT_API
        )
        return Target(DEFAULT_API, RequestCodec(Account("", "", "")).limits.formats)
