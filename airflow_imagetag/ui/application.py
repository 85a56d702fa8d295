"""Private: the pages as an application for Airflow's API server.

A mounted application is not authenticated by Airflow, so every route has Airflow's own check: the
reader must be allowed to see assets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from airflow_imagetag.backends.configuration import ui_stores
from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.stores.browsing import StoredImage
from airflow_imagetag.ui.asgi import NO_STORE
from airflow_imagetag.ui.hub import PictureCache, StoreHub
from airflow_imagetag.ui.render import static_file
from airflow_imagetag.ui.shown_stores import parse_stores
from airflow_imagetag.ui.texts import LANGUAGES, preferred_language
from airflow_imagetag.ui.thumbnails import NoPicture, Thumbnails, configured_thumbnails
from airflow_imagetag.ui.web_pages import (
    DIGEST,
    Found,
    NotFoundError,
    Reader,
    WebPages,
    placeholder,
)

T = TypeVar("T")

QUERY_THREADS = 4
"""Number of pages that are made at the same time in a process."""

MAX_QUERIES = 64
"""Maximum number of pages that are made or wait for it; others are told to come back."""

PICTURE_THREADS = 2
"""Number of small pictures that are made at the same time in a process."""

PICTURE_WAIT_SECONDS = 45.0
"""How long a request for a small picture waits for its turn: shorter than a proxy does."""

PICTURE_WAITS = 4
"""How often a small picture waits so long; a browser is led to the same address in between."""

MAX_PICTURES = 4_096
"""Maximum number of small pictures that wait; others are told that the server is busy."""

PICTURE_CACHE_BYTES = 32 * 1024 * 1024
"""Maximum size of the small pictures that are kept in a process."""

PICTURE_CACHE_SECONDS = 600.0
"""How long a small picture is kept."""

MAX_PARAMETER = 4_096
"""Maximum length of a parameter of a request."""

STATIC = {"style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
"""Files that never change, with their types."""

PAGES = ("overview", "labels", "gallery", "image", "failures", "runs")
"""The pages of a store."""

Check = Callable[..., Any]


def configured_application() -> FastAPI:
    """Return the application for the stores of ``[imagetag] ui_stores``, with Airflow's checks.

    :raises ConfigurationError: the option is wrong.
    """
    from airflow.api_fastapi.core_api.security import requires_access_asset

    hub = StoreHub(parse_stores(ui_stores()))
    return make_application(hub, configured_thumbnails(), requires_access_asset(method="GET"))


def make_application(hub: StoreHub, thumbnails: Thumbnails, check: Check) -> FastAPI:
    """Return the application.

    :param hub: the stores.
    :param thumbnails: makes small pictures.
    :param check: a dependency of every route that raises if the reader may not see it.
    """
    server = _Server(hub, thumbnails)
    application = FastAPI(
        dependencies=[Depends(check)], docs_url=None, redoc_url=None, openapi_url=None
    )
    route = partial(application.add_api_route, methods=["GET", "HEAD"], response_model=None)
    route("/", server.stores)
    route("/run", server.run)
    route("/static/{name}", server.static)
    route("/{store}", server.first)
    route("/{store}/", server.first)
    route("/{store}/thumbnail", server.thumbnail)
    route("/{store}/{page}", server.page)
    # So that a path that is none is refused by the check as well.
    route("/{path:path}", server.nothing)
    application.add_exception_handler(AnyHTTPException, server.refused)  # type: ignore[arg-type]
    application.add_exception_handler(RequestValidationError, server.invalid)
    return application


class _Server:
    """Answers the requests of readers that may see the pages.

    :param hub: the stores.
    :param thumbnails: makes small pictures.
    """

    def __init__(self, hub: StoreHub, thumbnails: Thumbnails) -> None:
        self._hub = hub
        self._pages = WebPages(hub)
        self._thumbnails = thumbnails
        self._queries = ThreadPoolExecutor(QUERY_THREADS, "imagetag-page")
        self._painters = ThreadPoolExecutor(PICTURE_THREADS, "imagetag-picture")
        self._waiting = 0
        self._turns = asyncio.Semaphore(PICTURE_THREADS)
        self._queued = 0
        self._cache = PictureCache(PICTURE_CACHE_BYTES, PICTURE_CACHE_SECONDS)

    async def stores(self, request: Request) -> Response:
        """Show the stores."""
        reader = _reader(request, up="")
        return _html(await self._asked(lambda: self._pages.stores(reader)))

    async def run(self, request: Request) -> Response:
        """Show the run of a task."""
        reader = _reader(request, up="")
        return _html(await self._asked(lambda: self._pages.run(reader)))

    async def first(self, request: Request, store: str) -> Response:
        """Lead to the first page of a store."""
        self._known(store)
        up = "" if request.url.path.endswith("/") else f"{store}/"
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{up}overview{query}", 307)

    async def page(self, request: Request, store: str, page: str) -> Response:
        """Show a page of a store."""
        self._known(store)
        if page not in PAGES:
            raise HTTPException(404)
        reader = _reader(request, up="../")
        return _html(await self._asked(lambda: self._pages.page(reader, store, page)))

    async def static(self, name: str) -> Response:
        """Return a file that never changes."""
        if name not in STATIC:
            raise HTTPException(404)
        headers = {"cache-control": "private, max-age=3600"}
        return Response(static_file(name), media_type=STATIC[name], headers=headers)

    async def thumbnail(self, request: Request, store: str) -> Response:
        """Return the small picture of an image, or a picture that says why there is none."""
        self._known(store)
        api, digest = _parameter(request, "api") or "", _parameter(request, "key") or ""
        if not DIGEST.fullmatch(digest):
            raise HTTPException(404)
        key = (store, api, digest)
        picture: bytes | NoPicture | None = self._cache.get(key)
        if picture is None:
            picture = await self._painted(request, key)
        if picture is None:
            raise HTTPException(404)
        if picture is NoPicture.BUSY:
            return self._later(request)
        if isinstance(picture, bytes):
            self._cache.put(key, picture)
            headers = {"cache-control": "private, max-age=600"}
            return Response(picture, media_type="image/jpeg", headers=headers)
        return Response(placeholder(picture, _language(request)), media_type="image/svg+xml")

    async def _painted(
        self, request: Request, key: tuple[str, str, str]
    ) -> bytes | NoPicture | None:
        """Return a small picture that is made when it has its turn."""
        if not await self._has_turn():
            return NoPicture.BUSY
        try:
            if await request.is_disconnected():
                # The reader has left the page: the next one's turn.
                return NoPicture.BUSY
            if (made := self._cache.get(key)) is not None:
                return made
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._painters, self._paint, *key)
        finally:
            self._turns.release()

    async def _has_turn(self) -> bool:
        """Wait for the turn of a small picture, without a thread; tell whether it came."""
        if self._queued >= MAX_PICTURES:
            return False
        self._queued += 1
        try:
            async with asyncio.timeout(PICTURE_WAIT_SECONDS):
                return await self._turns.acquire()
        except TimeoutError:
            return False
        finally:
            self._queued -= 1

    def _later(self, request: Request) -> Response:
        """Lead to the same picture once more, or say that the server is busy; neither is cached."""
        waits = _parameter(request, "waits") or ""
        waited = int(waits) if waits.isdecimal() and len(waits) == 1 else 0
        headers = {"cache-control": NO_STORE}
        if waited + 1 < PICTURE_WAITS and self._queued < MAX_PICTURES:
            url = request.url.include_query_params(waits=waited + 1)
            return RedirectResponse(f"thumbnail?{url.query}", 307, headers)
        text = placeholder(NoPicture.BUSY, _language(request))
        return Response(text, media_type="image/svg+xml", headers=headers)

    def _paint(self, store: str, api: str, digest: str) -> bytes | NoPicture | None:
        try:
            with self._hub.browser(store) as browser:
                images: Mapping[str, StoredImage] = {
                    image.api: image for image in browser.image(digest)
                }
        except ImageTagError:
            return NoPicture.NOT_READ
        return self._thumbnails.picture(images[api]) if api in images else None

    async def nothing(self) -> Response:
        """Say that there is no such page."""
        raise HTTPException(404)

    async def refused(self, request: Request, error: AnyHTTPException) -> Response:
        """Show why there is no page."""
        names = {401: "log_in", 403: "forbidden", 404: "not_found", 503: "busy"}
        return self._message(request, names.get(error.status_code, "busy"), error.status_code)

    async def invalid(self, request: Request, error: Exception) -> Response:
        """Show that a request is wrong."""
        del error
        return self._message(request, "not_found", 404)

    def _message(self, request: Request, name: str, status: int) -> Response:
        depth = request.url.path.removeprefix(request.scope.get("root_path", "")).count("/") - 1
        reader = _reader(request, up="../" * max(depth, 0))
        return HTMLResponse(self._pages.message(reader, name), status)

    def _known(self, store: str) -> None:
        if store not in self._hub.stores:
            raise HTTPException(404)

    async def _asked(self, make: Callable[[], T]) -> T:
        """Return the result of a query, made in a thread of our own."""
        if self._waiting >= MAX_QUERIES:
            raise HTTPException(503)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._queries, make)
        except NotFoundError:
            raise HTTPException(404) from None
        finally:
            self._waiting -= 1


def _html(found: Found) -> Response:
    return HTMLResponse(found.text, found.status)


def _reader(request: Request, *, up: str) -> Reader:
    parameters = {
        name: value[:MAX_PARAMETER] for name, value in request.query_params.items() if value
    }
    chosen = parameters.get("lang")
    return Reader(
        parameters,
        _language(request),
        chosen if chosen in LANGUAGES else None,
        up,
        # In Airflow's frame, which may not open other windows.
        is_framed=request.headers.get("sec-fetch-dest") == "iframe",
    )


def _language(request: Request) -> str:
    chosen = _parameter(request, "lang")
    if chosen in LANGUAGES:
        return str(chosen)
    return preferred_language(request.headers.get("accept-language", ""))


def _parameter(request: Request, name: str) -> str | None:
    value = request.query_params.get(name)
    return None if value is None else value[:MAX_PARAMETER]
