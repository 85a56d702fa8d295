"""The hook: labels one image through one account."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from airflow_imagetag.adapters.connection_form import connection_form_widgets, ui_field_behaviour
from airflow_imagetag.backends.configuration import CONN_TYPE, DEFAULT_CONN_ID
from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.hooks.account import AccountHook

if TYPE_CHECKING:
    import requests

    from airflow_imagetag.labellers.base import Labeller
    from airflow_imagetag.loading.content import ContentLoader
    from airflow_imagetag.models import Image, TagResult
    from airflow_imagetag.services.messages import HttpResponse, Request

__all__ = ["ImageTagHook"]

ASYNC_CONNECTIONS = 64
"""Maximum number of connections that ``async with`` keeps open for concurrent ``atag`` calls."""


class ImageTagHook(AccountHook):
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
        super().__init__(imagetag_conn_id, oversize=oversize, **kwargs)
        self._session: requests.Session | None = None
        self._loader: ContentLoader | None = None
        self._open_labeller: Labeller | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form fields of the extras, for Airflow versions that ask the hook."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the form, for Airflow versions that ask the hook."""
        return ui_field_behaviour()

    def get_conn(self) -> requests.Session:
        """Return the HTTP session that ``tag`` uses."""
        if self._session is None:
            from airflow_imagetag.transport import blocking

            self._session = blocking.new_session()
        return self._session

    def tag(self, image: Image | bytes | str) -> TagResult:
        """Label one image.

        :param image: an ``Image``, bytes, an http(s) URL, an object-storage URI such as
            ``s3://aws_default@bucket/key``, or a local path inside ``allowed_local_paths``.
        :raises ImageTagError: the class says what the caller may do; see
            ``airflow_imagetag.errors``.
        """
        from airflow_imagetag.sources.items import as_image

        item = as_image(image)
        if self.account.local is not None:
            from airflow_imagetag.runtime.threads import wait_for

            return wait_for(lambda: self.atag(item))
        payload = self._new_preflight().fit(item, self._own_loader().load(item))
        response = self._send(self.codec.request(payload))
        return self.codec.result(item, response, payload.sha256)

    async def atag(self, image: Image | bytes | str) -> TagResult:
        """Label one image without blocking the event loop; otherwise the same as ``tag``.

        Inside ``async with hook:`` all calls share their connections; outside, each opens its own.
        """
        if self._open_labeller is not None:
            return await _label(self._open_labeller, image)
        async with await self._new_labeller(max_connections=1) as labeller:
            return await _label(labeller, image)

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

    def test_connection(self) -> tuple[bool, str]:
        """Prove endpoint, account and signature without an image, which is never billed.

        A local model is opened, and labels a grey picture.
        """
        try:
            if self.account.local is not None:
                return True, self._local_model().check()
            response = self._send(self.codec.probe())
            self.codec.check_probe(response)
        except ImageTagError as error:
            return False, f"{type(error).__name__}: {error.message}"
        account = self.account
        owner = f"AppID {account.app_id}" if account.app_id else "the account"
        return True, f"{account.endpoint} accepts the signature of {owner} for {account.api}"

    def _send(self, request: Request) -> HttpResponse:
        from airflow_imagetag.transport import blocking

        return blocking.send(self.get_conn(), self.account, request)

    def _own_loader(self) -> ContentLoader:
        if self.account.local is not None:
            # Each labeller closes its downloader.
            return self._new_loader(downloads=True)
        if self._loader is None:
            self._loader = self._new_loader(downloads=False)
        return self._loader

    def _new_loader(self, *, downloads: bool) -> ContentLoader:
        from airflow_imagetag.backends.parameter_files import configured_policy
        from airflow_imagetag.loading.content import ContentLoader

        allowed = configured_policy()
        return ContentLoader(
            allowed.folders,
            downloader=self.downloader() if downloads else None,
            max_bytes=self.max_image_bytes,
            service_url=self.account.endpoint or None,
            connections=allowed.connections,
            object_key=None if self.account.local is not None else self.codec.object_key,
        )

    async def _new_labeller(self, *, max_connections: int) -> Labeller:
        account = await self._fetch_account()
        if account.local is not None:
            # The name follows from the model's bytes, which may have to be read.
            await asyncio.to_thread(lambda: self.api)
        return self.labeller(self._own_loader(), max_connections=max_connections)


async def _label(labeller: Labeller, image: Image | bytes | str) -> TagResult:
    from airflow_imagetag.sources.items import as_image

    return await labeller.call(await labeller.fit(await labeller.prepare(as_image(image))))
