"""A labeller for one account: loads an image, checks it, and sends it over HTTP."""

from __future__ import annotations

from contextlib import AsyncExitStack

from airflow_imagetag.labellers.base import Prepared
from airflow_imagetag.labellers.loading import LoadingLabeller, in_thread
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.preflight import ImagePreflight
from airflow_imagetag.models import TagResult
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.transport.nonblocking import Connections

MAX_DECODING = 4
"""Maximum number of images that a run decodes at the same time; fewer if they are large."""

MAX_BUILDING = 8
"""Maximum number of requests that are built in threads at the same time."""


class HttpLabeller(LoadingLabeller):
    """Label images through one account; an async context, entered once.

    Work that takes next to no time runs in the event loop: URLs, the digest of a few bytes, checks,
    small requests. Three pools of threads take the rest: reading and hashing, decoding, and
    building requests. A pool whose threads hang does not hold up the others.

    :param account: the parsed connection.
    :param codec: builds the requests of the account and reads the responses.
    :param loader: loads images under the rules of trust; its downloader is closed here.
    :param preflight: checks images against the limits of the service.
    :param max_connections: maximum number of connections to the service that are kept open.
    """

    reports_departure = True

    def __init__(
        self,
        account: Account,
        codec: RequestCodec,
        loader: ContentLoader,
        preflight: ImagePreflight,
        *,
        max_connections: int,
    ) -> None:
        super().__init__(loader, max_connections=max_connections)
        self.calls_per_image = codec.calls_per_image
        self._codec = codec
        self._max_inline_bytes = codec.max_inline_bytes
        self._preflight = preflight
        self._connections = Connections(account, max_connections=max_connections)
        self._decoding = DaemonExecutor(MAX_DECODING, "imagetag-decode")
        self._building = DaemonExecutor(min(max_connections, MAX_BUILDING), "imagetag-build")

    async def open_resources(self, resources: AsyncExitStack) -> None:
        """Open the connections to the service."""
        await resources.enter_async_context(self._connections)
        for pool in (self._decoding, self._building):
            resources.callback(pool.shutdown)
        resources.callback(self._preflight.report)

    async def fit(self, prepared: Prepared) -> Prepared:
        """Check the image against the limits of the service, and downscale it if that is asked for.

        :raises ImageError: the service does not take the image.
        """
        image, payload = prepared.image, prepared.payload
        if self._preflight.needs_decoding(payload):
            fitted = await in_thread(self._decoding, self._preflight.fit, image, payload)
        else:
            fitted = self._preflight.fit(image, payload)
        return prepared if fitted is payload else Prepared(image, fitted)

    async def call(self, prepared: Prepared) -> TagResult:
        """Send one request and return the labels; does not retry.

        :raises ImageTagError: its class says what the caller may do.
        """
        payload = prepared.payload
        size = 0 if payload.content is None else len(payload.content)
        # Else building it takes longer than a thread needs to take over.
        if size <= self._max_inline_bytes and not self._codec.needs_io:
            request = self._codec.request(payload)
        else:
            request = await in_thread(self._building, self._codec.request, payload)
        response = await self._connections.send(request)
        return self._codec.result(prepared.image, response, payload.sha256)
