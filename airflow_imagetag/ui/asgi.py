"""Private: an ASGI application that is made at its first request; sets headers of security."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    # Airflow shows the pages in a frame of its own origin.
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every response."""

NO_STORE = "no-store"
"""Default of the header Cache-Control: what one reader may see, another may not."""

_METHODS = ("GET", "HEAD")


class LazyApplication:
    """Makes the application when the first request comes; a failure is that request's.

    :param make: makes the application.
    """

    def __init__(self, make: Callable[[], Application] | None = None) -> None:
        self._make = make or _configured
        self._lock = threading.Lock()
        self._made: Application | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if scope["method"] not in _METHODS:
            # Pages only read, so there is nothing that a forged request could change.
            await _refuse(_with_headers(send))
            return
        made = self._made
        if made is None:
            made = await asyncio.to_thread(self._application)
        await made(scope, receive, _with_headers(send))

    def _application(self) -> Application:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


def _configured() -> Application:
    from airflow_imagetag.ui.application import configured_application

    return configured_application()


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            names = {name.lower() for name, _ in headers}
            headers += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            if b"cache-control" not in names:
                headers.append((b"cache-control", NO_STORE.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return sending


async def _refuse(send: Send) -> None:
    headers = [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 405, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
