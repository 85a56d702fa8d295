"""The hook: labels one image through one account."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, BaseHook, Connection
from airflow_imagetag.adapters.connection_form import connection_form_widgets, ui_field_behaviour
from airflow_imagetag.backends.accounts import CONN_TYPE, account_of
from airflow_imagetag.backends.configuration import (
    DEFAULT_CONN_ID,
    allowed_connections,
    allowed_local_folders,
    allowed_private_hosts,
    model_cache_path,
    user_agent,
)
from airflow_imagetag.backends.connection_policy import ConnectionPolicy
from airflow_imagetag.errors import ConfigurationError, ImageTagError, UnknownConnectionError
from airflow_imagetag.loading.content import MAX_IMAGE_BYTES, MAX_LARGE_IMAGE_BYTES, ContentLoader
from airflow_imagetag.loading.preflight import ImagePreflight, Oversize, parse_oversize
from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.runtime.threads import wait_for
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.sources.items import as_image
from airflow_imagetag.transport import blocking

if TYPE_CHECKING:
    import requests

    from airflow_imagetag.hooks.local_model import HookModel
    from airflow_imagetag.labellers.base import Labeller
    from airflow_imagetag.loading.download import Downloader
    from airflow_imagetag.services.base import Limits

__all__ = ["ImageTagHook"]

ASYNC_CONNECTIONS = 64
"""Maximum number of connections that ``async with`` keeps open for concurrent ``atag`` calls."""


class ImageTagHook(BaseHook):
    """Label one image at a time with the account of an ``imagetag`` connection.

    ``tag`` and ``atag`` send one request and do not retry: the operator does, within the quota.

    :param imagetag_conn_id: id of the connection.
    :param oversize: treatment of an image with more bytes than the service takes: ``error`` raises
        ``ImageTooLargeError``, ``downscale`` sends a smaller JPEG of it, which needs the extra
        ``downscale``.
    :raises ConfigurationError: ``oversize`` has another value.
    """

    conn_name_attr = "imagetag_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = "Image labels (ImageTag)"

    def __init__(
        self, imagetag_conn_id: str = default_conn_name, *, oversize: str = "error", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.imagetag_conn_id = imagetag_conn_id
        self.oversize = parse_oversize(oversize)
        self._account: Account | None = None
        self._codec: RequestCodec | None = None
        self._session: requests.Session | None = None
        self._loader: ContentLoader | None = None
        self._open_labeller: Labeller | None = None
        self._model: HookModel | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form fields of the extras, for Airflow versions that ask the hook."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the form, for Airflow versions that ask the hook."""
        return ui_field_behaviour()

    @property
    def account(self) -> Account:
        """The account that the connection describes; the connection is read once.

        :raises ConfigurationError: there is no such connection, or one of its fields is wrong.
        """
        if self._account is None:
            try:
                connection = self.get_connection(self.imagetag_conn_id)
            except AirflowNotFoundException as error:
                raise UnknownConnectionError(
                    f"{error}. Correct imagetag_conn_id, or create the connection."
                ) from None
            self._account = account_of(connection)
        return self._account

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
            self._codec = RequestCodec(self.account)
        return self._codec

    @property
    def max_image_bytes(self) -> int:
        """Maximum size of an image that is read; larger than the service takes when downscaling."""
        is_decoded = self.oversize is Oversize.DOWNSCALE or self.account.local is not None
        return MAX_LARGE_IMAGE_BYTES if is_decoded else MAX_IMAGE_BYTES

    def get_conn(self) -> requests.Session:
        """Return the HTTP session that ``tag`` uses."""
        if self._session is None:
            self._session = blocking.new_session()
        return self._session

    def tag(self, image: Image | bytes | str) -> TagResult:
        """Label one image.

        :param image: an ``Image``, bytes, an http(s) URL, an object-storage URI such as
            ``s3://aws_default@bucket/key``, or a local path inside ``allowed_local_paths``.
        :raises ImageTagError: the class says what the caller may do; see
            ``airflow_imagetag.errors``.
        """
        item = as_image(image)
        if self.account.local is not None:
            return wait_for(lambda: self.atag(item))
        payload = self._new_preflight().fit(item, self._own_loader().load(item))
        response = blocking.send(self.get_conn(), self.account, self.codec.request(payload))
        return self.codec.result(item, response, payload.sha256)

    async def atag(self, image: Image | bytes | str) -> TagResult:
        """Label one image without blocking the event loop; otherwise the same as ``tag``.

        Inside ``async with hook:`` all calls share their connections; outside, each opens its own.
        """
        if self._open_labeller is not None:
            return await _label(self._open_labeller, as_image(image))
        async with await self._new_labeller(max_connections=1) as labeller:
            return await _label(labeller, as_image(image))

    async def __aenter__(self) -> Self:
        if self._open_labeller is not None:
            raise RuntimeError("This hook is already open. Use one 'async with' at a time.")
        labeller = await self._new_labeller(max_connections=ASYNC_CONNECTIONS)
        self._open_labeller = await labeller.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        labeller, self._open_labeller = self._open_labeller, None
        if labeller is not None:
            await labeller.__aexit__(*exc_info)

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

    def test_connection(self) -> tuple[bool, str]:
        """Prove endpoint, account and signature without an image, which is never billed.

        A local model is opened, and labels a grey picture.
        """
        try:
            if self.account.local is not None:
                return True, self._local_model().check()
            response = blocking.send(self.get_conn(), self.account, self.codec.probe())
            self.codec.check_probe(response)
        except ImageTagError as error:
            return False, f"{type(error).__name__}: {error.message}"
        account = self.account
        owner = f"AppID {account.app_id}" if account.app_id else "the account"
        return True, f"{account.endpoint} accepts the signature of {owner} for {account.api}"

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

    def _own_loader(self) -> ContentLoader:
        if self.account.local is not None:
            # Each labeller closes its downloader.
            return self._new_loader(self.downloader())
        if self._loader is None:
            self._loader = self._new_loader(None)
        return self._loader

    def _new_loader(self, downloader: Downloader | None) -> ContentLoader:
        return ContentLoader(
            allowed_local_folders(),
            downloader=downloader,
            max_bytes=self.max_image_bytes,
            service_url=self.account.endpoint or None,
            connections=ConnectionPolicy(allowed=allowed_connections()),
            object_key=None if self.account.local is not None else self.codec.object_key,
        )

    def _new_preflight(self) -> ImagePreflight:
        return ImagePreflight(self.account.api, self.codec.limits, self.oversize)

    async def _new_labeller(self, *, max_connections: int) -> Labeller:
        if self._account is None:
            self._account = await self._fetched_account()
        if self._account.local is not None:
            # The name follows from the model's bytes, which may have to be read.
            await asyncio.to_thread(lambda: self.api)
        return self.labeller(self._own_loader(), max_connections=max_connections)

    async def _fetched_account(self) -> Account:
        connection = await self._fetched_connection()
        # Masking the secrets talks to Airflow's supervisor, which would block the event loop.
        return await asyncio.to_thread(account_of, connection)

    async def _fetched_connection(self) -> Connection:
        # Before Airflow 3.3.2 the method for coroutines masks the secrets with a blocking call to
        # the supervisor, which refuses it while another call is under way.
        if hasattr(Connection, "aextra_dejson"):
            return await self.aget_connection(self.imagetag_conn_id)
        # Airflow's own bridge to a thread: the triggerer's calls come back to the loop by it.
        from asgiref.sync import sync_to_async

        return await sync_to_async(self.get_connection)(self.imagetag_conn_id)


async def _label(labeller: Labeller, image: Image) -> TagResult:
    return await labeller.call(await labeller.fit(await labeller.prepare(image)))
