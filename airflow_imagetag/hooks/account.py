"""Private: the account of a connection, and the labellers that work with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, BaseHook
from airflow_imagetag.backends.configuration import (
    allowed_private_hosts,
    model_cache_path,
    user_agent,
)
from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Connection
    from airflow_imagetag.hooks.local_model import HookModel
    from airflow_imagetag.labellers.base import Labeller
    from airflow_imagetag.loading.content import ContentLoader
    from airflow_imagetag.loading.download import Downloader
    from airflow_imagetag.loading.preflight import ImagePreflight
    from airflow_imagetag.services import Account, Limits
    from airflow_imagetag.services.request_codec import RequestCodec


class AccountHook(BaseHook):
    """Reads the account of an ``imagetag`` connection once, and makes labellers for it.

    :param imagetag_conn_id: id of the connection.
    :param oversize: treatment of an image with more bytes than the service takes.
    :raises ConfigurationError: ``oversize`` has another value.
    """

    def __init__(self, imagetag_conn_id: str, *, oversize: str, **kwargs: Any) -> None:
        from airflow_imagetag.loading.preflight import parse_oversize

        super().__init__(**kwargs)
        self.imagetag_conn_id = imagetag_conn_id
        self.oversize = parse_oversize(oversize)
        self._account: Account | None = None
        self._codec: RequestCodec | None = None
        self._model: HookModel | None = None

    @property
    def account(self) -> Account:
        """The account that the connection describes; the connection is read once.

        :raises ConfigurationError: there is no such connection, or one of its fields is wrong.
        """
        if self._account is None:
            try:
                connection = self.get_connection(self.imagetag_conn_id)
            except AirflowNotFoundException:
                raise self._unknown_connection() from None
            self._account = _account_of(connection)
        return self._account

    def _unknown_connection(self) -> UnknownConnectionError:
        conn_id = self.imagetag_conn_id
        return UnknownConnectionError(
            f"There is no connection {conn_id!r}. Correct imagetag_conn_id (--connection of the "
            f"command), or create it: airflow connections add {conn_id} --conn-type imagetag ..."
        )

    @property
    def api(self) -> str:
        """Name of the interface, or of the local model, in results and stores.

        :raises ConfigurationError: the connection is wrong, or a file of the model is missing.
        :raises StorageError: the storage of a file of the model failed.
        """
        return self.account.api if self.account.local is None else self._local_model().api

    @property
    def limits(self) -> Limits:
        """Limits that an image is checked against before it is labelled."""
        if self.account.local is None:
            return self.codec.limits
        return self._local_model().limits

    @property
    def codec(self) -> RequestCodec:
        """The codec of the account's requests and responses; all calls share its signature.

        :raises ConfigurationError: the connection is wrong, or a local model labels its images.
        """
        if self.account.local is not None:
            raise ConfigurationError(
                f"Connection {self.imagetag_conn_id!r} sends no requests: a local model labels its "
                "images."
            )
        if self._codec is None:
            from airflow_imagetag.services.request_codec import RequestCodec

            self._codec = RequestCodec(self.account)
        return self._codec

    @property
    def max_image_bytes(self) -> int:
        """Maximum size of an image that is read; larger than the service takes when downscaling."""
        from airflow_imagetag.loading.content import MAX_IMAGE_BYTES, MAX_LARGE_IMAGE_BYTES
        from airflow_imagetag.loading.preflight import Oversize

        is_decoded = self.oversize is Oversize.DOWNSCALE or self.account.local is not None
        return MAX_LARGE_IMAGE_BYTES if is_decoded else MAX_IMAGE_BYTES

    def labeller(self, loader: ContentLoader, *, max_connections: int) -> Labeller:
        """Return a labeller for many images, which the caller enters and leaves.

        :param loader: loads images under the rules of trust.
        :param max_connections: maximum number of connections to the service that are kept open.
        """
        if self.account.local is not None:
            return self._local_model().labeller(loader, max_connections=max_connections)
        from airflow_imagetag.labellers.http import HttpLabeller

        return HttpLabeller(
            self.account,
            self.codec,
            loader,
            self._new_preflight(),
            max_connections=max_connections,
        )

    def downloader(self) -> Downloader:
        """Return a downloader of http(s) URLs, which the labeller closes that it is given to."""
        from airflow_imagetag.loading.download import Downloader

        return Downloader(
            max_bytes=self.max_image_bytes,
            timeout_seconds=self.account.timeout_seconds,
            allowed_hosts=allowed_private_hosts(),
            user_agent=user_agent(),
        )

    def _local_model(self) -> HookModel:
        if self._model is None:
            from airflow_imagetag.hooks.local_model import HookModel

            self._model = HookModel(self.account, model_cache_path())
        return self._model

    def _new_preflight(self) -> ImagePreflight:
        from airflow_imagetag.loading.preflight import ImagePreflight

        return ImagePreflight(self.account.api, self.codec.limits, self.oversize)

    async def _fetch_account(self) -> Account:
        """Return the account; the connection is read without blocking the event loop."""
        if self._account is None:
            try:
                connection = await self._fetched_connection()
            except AirflowNotFoundException:
                raise self._unknown_connection() from None
            # Masking the secrets talks to Airflow's supervisor, which would block the event loop.
            self._account = await asyncio.to_thread(_account_of, connection)
        return self._account

    async def _fetched_connection(self) -> Connection:
        from airflow_imagetag.adapters.airflow_sdk import Connection

        # Before Airflow 3.3.2 the method for coroutines masks the secrets with a blocking call to
        # the supervisor, which refuses it while another call is under way.
        if hasattr(Connection, "aextra_dejson"):
            return await self.aget_connection(self.imagetag_conn_id)
        # Airflow's own bridge to a thread: the triggerer's calls come back to the loop by it.
        from asgiref.sync import sync_to_async

        return await sync_to_async(self.get_connection)(self.imagetag_conn_id)


def _account_of(connection: Connection) -> Account:
    # The services are imported here: in a thread, where an event loop runs.
    from airflow_imagetag.backends.accounts import account_of

    return account_of(connection)
