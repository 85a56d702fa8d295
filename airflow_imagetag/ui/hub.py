"""Private: the open stores of a server, copies that are made beside its work, and a small cache."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.stores.browsing import CopyProgress, StoreBrowser
from airflow_imagetag.stores.opening import is_copied, open_browser

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore

log = logging.getLogger(__name__)

T = TypeVar("T")

COPY_SECONDS = 300.0
"""Minimum age of a copy from which a request has a new one made."""

COPY_RATIO = 10.0
"""Minimum ratio of this age to the time that the copy took."""

FAILED_SECONDS = 30.0
"""How long the error of a copy is told before another one is tried."""

CACHED_SECONDS = 60.0
"""How long numbers of a store are shown again."""

MAX_CACHED = 200
"""Maximum number of cached values."""


class CopyIsMadeError(ImageTagError):
    """The copy of a store is not finished yet.

    :param progress: how far it is.
    """

    def __init__(self, progress: CopyProgress) -> None:
        super().__init__("The store is being read.")
        self.progress = progress


@dataclass
class _Opened:
    """An open store with the number of its users.

    :param context: closes it.
    :param opening_seconds: time that its opening took, which may have copied it.
    """

    context: AbstractContextManager[StoreBrowser]
    browser: StoreBrowser
    opened_at: float
    opening_seconds: float
    users: int = 0
    is_replaced: bool = False


@dataclass
class _Place:
    """A store of the server."""

    store: LabelStore
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: _Opened | None = None
    copying: CopyProgress | None = None
    error: ImageTagError | None = None
    failed_at: float = 0.0


class StoreHub:
    """The stores of a server by name; safe for several threads.

    :param stores: the stores.
    :param copy_seconds: minimum age of a copy from which a new one is made.
    """

    def __init__(
        self, stores: Mapping[str, LabelStore], *, copy_seconds: float = COPY_SECONDS
    ) -> None:
        self.stores = stores
        self._places = {name: _Place(store) for name, store in stores.items()}
        self._copy_seconds = copy_seconds

    @contextmanager
    def browser(self, name: str) -> Iterator[StoreBrowser]:
        """Yield an open store.

        :raises CopyIsMadeError: its copy is not finished.
        :raises ImageTagError: it cannot be opened.
        """
        place = self._places[name]
        opened = self._taken(place)
        try:
            yield opened.browser
        finally:
            with place.lock:
                opened.users -= 1
                is_last = opened.is_replaced and opened.users == 0
            if is_last:
                opened.context.__exit__(None, None, None)

    def _taken(self, place: _Place) -> _Opened:
        with place.lock:
            if is_copied(place.store):
                self._have_copied(place)
            elif place.opened is None:
                place.opened = _open(place.store)
            if place.opened is None:
                raise place.error or CopyIsMadeError(place.copying or CopyProgress())
            place.opened.users += 1
            return place.opened

    def _have_copied(self, place: _Place) -> None:
        """Have a copy made in a thread, unless there is a new one or one is being made."""
        now = time.monotonic()
        opened = place.opened
        is_fresh = opened is not None and now - opened.opened_at < max(
            self._copy_seconds, COPY_RATIO * opened.opening_seconds
        )
        has_failed = place.error is not None and now - place.failed_at < FAILED_SECONDS
        if is_fresh or place.copying is not None or has_failed:
            return
        place.copying = progress = CopyProgress()
        submit_daemon(lambda: self._copy(place, progress), name="imagetag-copy")

    def _copy(self, place: _Place, progress: CopyProgress) -> None:
        made: _Opened | None = None
        error: ImageTagError | None = None
        try:
            made = _open(place.store, progress)
        except ImageTagError as raised:
            error = raised
        # Whatever a storage's library raises belongs into the page, not into a lost thread.
        except Exception as raised:
            log.exception("A store cannot be copied for its pages")
            error = ImageTagError(redact_text(f"{type(raised).__name__}: {raised}")[:300])
        with place.lock:
            old, place.copying, place.error = place.opened, None, error
            place.failed_at = time.monotonic()
            if made is None:
                return
            place.opened = made
            is_unused = old is not None and old.users == 0
            if old is not None:
                old.is_replaced = True
        if old is not None and is_unused:
            old.context.__exit__(None, None, None)

    def close(self) -> None:
        """Close all stores."""
        for place in self._places.values():
            with place.lock:
                opened, place.opened = place.opened, None
            if opened is not None:
                opened.context.__exit__(None, None, None)


def _open(store: LabelStore, progress: CopyProgress | None = None) -> _Opened:
    started = time.monotonic()
    context = open_browser(store, progress)
    browser = context.__enter__()
    opened_at = time.monotonic()
    return _Opened(context, browser, opened_at, opened_at - started)


class Cache:
    """Values for a short time, each made once though many ask for it; safe for several threads.

    :param seconds: how long a value is kept.
    :param max_values: maximum number of values.
    """

    def __init__(self, seconds: float = CACHED_SECONDS, max_values: int = MAX_CACHED) -> None:
        self._seconds = seconds
        self._max_values = max_values
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._values: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, made now if there is none."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            kept = self.kept(key)
            if kept is not None:
                value: T = kept
                return value
            made = make()
            with self._lock:
                self._values[key] = time.monotonic(), made
                self._values.move_to_end(key)
                while len(self._values) > self._max_values:
                    self._making.pop(self._values.popitem(last=False)[0], None)
            return made

    def kept(self, key: Hashable) -> Any:
        """Return the value of a key; None if there is none."""
        with self._lock:
            found = self._values.get(key)
        return found[1] if found and time.monotonic() - found[0] < self._seconds else None


class PictureCache:
    """Small pictures, the latest used ones, up to a number of bytes; for one event loop.

    :param max_bytes: maximum size of all of them.
    :param seconds: how long one is kept.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._bytes = 0
        self._pictures: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        """Return a picture, if it is kept."""
        found = self._pictures.get(key)
        if found is None or time.monotonic() - found[0] > self._seconds:
            return None
        self._pictures.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, picture: bytes) -> None:
        """Keep a picture."""
        if (old := self._pictures.pop(key, None)) is not None:
            self._bytes -= len(old[1])
        self._pictures[key] = time.monotonic(), picture
        self._bytes += len(picture)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._pictures.popitem(last=False)[1][1])
