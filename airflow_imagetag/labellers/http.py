"""Joins what one call needs: the account's signed requests, the reader of images, the network."""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import Self

from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.decoders import Decoders
from airflow_imagetag.loading.downscaling import MAX_DECODING
from airflow_imagetag.loading.preflight import ImagePreflight
from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import Payload
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.transport.nonblocking import Connections


class HttpLabeller:
    """Labels images through one account; an async context that holds its connections.

    :param account: what the connection says.
    :param caller: builds and reads its calls.
    :param reader: reads images under the rules of trust.
    :param fitter: checks them against the limits of the service.
    :param max_connections: bound of connections kept open.
    """

    def __init__(
        self,
        account: Account,
        caller: RequestCodec,
        reader: ContentLoader,
        fitter: ImagePreflight,
        *,
        max_connections: int,
    ) -> None:
        self._caller = caller
        self._reader = reader
        self._fitter = fitter
        # Its threads start when there is work. An image that waits here can be given up at once.
        self._decoders = Decoders(MAX_DECODING)
        self._connections = Connections(account, max_connections=max_connections)

    async def __aenter__(self) -> Self:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._fitter.report()
        self._decoders.close()
        await self._connections.__aexit__(kind, error, traceback)

    def is_quick(self, image: Image) -> bool:
        """Tell whether ``load`` takes next to no time, so that it needs no thread."""
        return self._reader.is_quick(image)

    def load(self, image: Image) -> Payload:
        """Return what to send of the image; blocks while it reads."""
        return self._reader.payload(image)

    async def fit(self, image: Image, payload: Payload) -> Payload:
        """Return the payload as the service takes it; what takes long runs in a thread."""
        if self._fitter.is_quick(payload):
            return self._fitter.fit(image, payload)
        work = partial(self._fitter.fit, image, payload)
        return await asyncio.wrap_future(self._decoders.submit(work))

    async def call(self, image: Image, payload: Payload) -> TagResult:
        """Send one request and return the labels; does not retry."""
        size = 0 if payload.content is None else len(payload.content)
        if self._caller.needs_io or size > self._caller.max_inline_bytes:
            request = await asyncio.to_thread(self._caller.request, payload)
        else:
            request = self._caller.request(payload)
        answer = await self._connections.send(request)
        return self._caller.result(image, answer, payload.sha256)
