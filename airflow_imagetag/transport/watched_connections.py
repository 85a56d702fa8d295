"""Cut the connections of a call of ``requests`` when its time is over.

The timeout of ``requests`` bounds each read. A server that sends a byte of a header, of a trailer
or of a handshake now and then keeps the call for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

_watch: ContextVar[CallWatch | None] = ContextVar("_watch", default=None)


class CallWatch:
    """The sockets of one call, which another thread may shut down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_cut = False
        self.was_connected = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the connections that this thread makes or uses inside."""
        token = _watch.set(self)
        try:
            yield
        finally:
            _watch.reset(token)
            self._close()

    def add(self, descriptor: int) -> None:
        """Watch a socket.

        :raises TimeoutError: the time is over; nothing may be sent any more.
        """
        # A copy: TLS takes the descriptor of a socket away from it.
        copy = socket.socket(fileno=os.dup(descriptor))
        with self._lock:
            if not self._is_cut:
                self.was_connected = True
                self._sockets.append(copy)
                return
        copy.close()
        raise TimeoutError

    def cut(self) -> None:
        """Shut the sockets down: the thread that uses them gets an error at once."""
        with self._lock:
            self._is_cut = True
            for item in self._sockets:
                with contextlib.suppress(OSError):
                    item.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        with self._lock:
            for item in self._sockets:
                item.close()
            self._sockets.clear()


@cache
def watched_adapter_class() -> type[HTTPAdapter]:
    """Return the class of adapters; importing requests waits for the first session."""
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Watched:
        """Tells the call that is made in this thread which socket it uses."""

        def _new_conn(self) -> Any:
            made: socket.socket = super()._new_conn()  # type: ignore[misc]
            try:
                _register(made)
            except TimeoutError:
                made.close()
                raise
            return made

        def putrequest(self, *args: Any, **options: Any) -> Any:
            """Begin a request, perhaps on the connection of an earlier one."""
            if (kept := getattr(self, "sock", None)) is not None:
                _register(kept)
            return super().putrequest(*args, **options)  # type: ignore[misc]

    class WatchedHTTPConnection(Watched, HTTPConnection):
        """A connection over http."""

    class WatchedHTTPSConnection(Watched, HTTPSConnection):
        """A connection over https."""

    class WatchedHTTPPool(HTTPConnectionPool):
        """Connections over http."""

        ConnectionCls = WatchedHTTPConnection

    class WatchedHTTPSPool(HTTPSConnectionPool):
        """Connections over https."""

        ConnectionCls = WatchedHTTPSConnection

    pools = {"http": WatchedHTTPPool, "https": WatchedHTTPSPool}

    class WatchedAdapter(HTTPAdapter):
        """Makes watched connections, through a proxy, too."""

        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            """Make the pools of direct connections."""
            super().init_poolmanager(*args, **options)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
            """Return the pools of connections through a proxy."""
            manager = super().proxy_manager_for(proxy, **options)
            manager.pool_classes_by_scheme = pools
            return manager

    return WatchedAdapter


def _register(used: socket.socket) -> None:
    if (watch := _watch.get()) is not None:
        watch.add(used.fileno())
