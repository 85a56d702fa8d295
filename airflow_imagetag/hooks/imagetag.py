"""The hook: one service account, one image in, its labels out."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_imagetag.adapters.connection_form import connection_form_widgets, ui_field_behaviour
from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID, allowed_local_folders
from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.loading.content import MAX_IMAGE_BYTES, MAX_LARGE_IMAGE_BYTES, ContentLoader
from airflow_imagetag.loading.preflight import ImagePreflight, Oversize, parse_oversize
from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.safety.addresses import names_private_host
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.registry import BUILT_IN, find_service
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.sources.items import as_image
from airflow_imagetag.transport import blocking

if TYPE_CHECKING:
    import requests
    from airflow.providers.common.compat.sdk import Connection

    from airflow_imagetag.labellers.http import HttpLabeller

log = logging.getLogger(__name__)

ASYNC_CONNECTIONS = 64
"""Connections that ``async with`` keeps open for concurrent ``atag`` calls."""


class ImageTagHook(BaseHook):
    """Signs requests with the account of an ``imagetag`` connection and labels one image at a time.

    ``tag`` and ``atag`` send one request and do not retry: the operator does, within the quota.

    :param imagetag_conn_id: id of the connection.
    :param oversize: what becomes of an image with more bytes than the service takes: ``error``
        raises ``ImageTooLargeError``, ``downscale`` sends a smaller JPEG of it, which needs the
        extra ``downscale``.
    :raises ConfigurationError: there is no such ``oversize``.
    """

    conn_name_attr = "imagetag_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "imagetag"
    hook_name = "Image labels (ImageTag)"

    def __init__(
        self, imagetag_conn_id: str = default_conn_name, *, oversize: str = "error", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.imagetag_conn_id = imagetag_conn_id
        self.oversize = parse_oversize(oversize)
        self._tagger: HttpLabeller | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form fields of the extras, for Airflow versions that ask the hook."""
        return connection_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the form, for Airflow versions that ask the hook."""
        return ui_field_behaviour()

    @cached_property
    def account(self) -> Account:
        """The account that the connection describes, parsed once.

        :raises ConfigurationError: names the field of the connection that is wrong.
        """
        return account_of(self.get_connection(self.imagetag_conn_id))

    @cached_property
    def caller(self) -> RequestCodec:
        """Builds and reads the calls of the account; its signature is made once and renewed."""
        return RequestCodec(self.account)

    @cached_property
    def _session(self) -> requests.Session:
        return blocking.new_session()

    def get_conn(self) -> requests.Session:
        """Return the HTTP session that ``tag`` uses."""
        return self._session

    def tag(self, image: Image | bytes | str) -> TagResult:
        """Label one image.

        :param image: an ``Image``, bytes, an http(s) URL, an object-storage URI such as
            ``s3://aws_default@bucket/key``, or a local path inside ``allowed_local_paths``.
        :raises ImageTagError: the class says what may be done; see ``airflow_imagetag.errors``.
        """
        one = as_image(image)
        payload = self._new_fitter().fit(one, self._reader.payload(one))
        answer = blocking.send(self.get_conn(), self.account, self.caller.request(payload))
        return self.caller.result(one, answer, payload.sha256)

    async def atag(self, image: Image | bytes | str) -> TagResult:
        """Label one image without blocking the event loop; as ``tag`` in all else.

        Inside ``async with hook:`` all calls share their connections; outside, each opens one.
        """
        if self._tagger is None:
            async with self._new_tagger(await self._aaccount(), max_connections=1) as tagger:
                return await _tag(tagger, as_image(image))
        return await _tag(self._tagger, as_image(image))

    async def __aenter__(self) -> Self:
        if self._tagger is not None:
            raise RuntimeError("This hook is open already: one 'async with' at a time.")
        tagger = self._new_tagger(await self._aaccount(), max_connections=ASYNC_CONNECTIONS)
        self._tagger = await tagger.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        tagger, self._tagger = self._tagger, None
        if tagger is not None:
            await tagger.__aexit__(*exc_info)

    def tagger(self, reader: ContentLoader, *, max_connections: int) -> HttpLabeller:
        """Return what the engine labels with.

        :param reader: reads images under the rules of trust.
        :param max_connections: bound of connections kept open.
        """
        from airflow_imagetag.labellers.http import HttpLabeller

        return HttpLabeller(
            self.account,
            self.caller,
            reader,
            self._new_fitter(),
            max_connections=max_connections,
        )

    def test_connection(self) -> tuple[bool, str]:
        """Prove endpoint, account and signature without an image, which is never billed."""
        try:
            answer = blocking.send(self.get_conn(), self.account, self.caller.probe())
            self.caller.check_probe(answer)
        except ImageTagError as error:
            return False, f"{type(error).__name__}: {error.message}"
        account = self.account
        whose = f"AppID {account.app_id}" if account.app_id else "the account"
        return True, f"{account.endpoint} accepts the signature of {whose} for {account.api}"

    @cached_property
    def _reader(self) -> ContentLoader:
        return ContentLoader(
            allowed_local_folders(),
            max_bytes=self.max_image_bytes,
            may_reach_private=names_private_host(self.account.endpoint),
        )

    @property
    def max_image_bytes(self) -> int:
        """How large an image may be to be read: more than is sent, if it is made smaller."""
        return MAX_LARGE_IMAGE_BYTES if self.oversize is Oversize.DOWNSCALE else MAX_IMAGE_BYTES

    def _new_fitter(self) -> ImagePreflight:
        return ImagePreflight(self.account.api, self.caller.limits, self.oversize)

    def _new_tagger(self, account: Account, *, max_connections: int) -> HttpLabeller:
        self.account = account
        return self.tagger(self._reader, max_connections=max_connections)

    async def _aaccount(self) -> Account:
        if "account" in self.__dict__:
            return self.account
        from airflow.providers.common.compat.connection import get_async_connection

        connection = await get_async_connection(self.imagetag_conn_id, self)
        # In a thread, because Airflow is told what to mask, and must not be waited for in the loop.
        return await asyncio.to_thread(account_of, connection)


def account_of(connection: Connection) -> Account:
    """Return the account that an ``imagetag`` connection describes.

    :raises ConfigurationError: names the field that is wrong, and a type that is another one.
    """
    try:
        account = parse_account(
            conn_id=connection.conn_id,
            login=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            extra=_extra(connection),
            find_service=find_service,
        )
    except ConfigurationError as error:
        if connection.conn_type == ImageTagHook.conn_type:
            raise
        # Most likely it is not the connection that was meant.
        raise ConfigurationError(
            f"{error.message} The connection has the type {connection.conn_type!r}; that of an "
            f"account is {ImageTagHook.conn_type!r}."
        ) from None
    # A service of another package may read names of its own.
    if account.api in BUILT_IN and (unknown := account.unknown_names):
        log.warning(
            "Connection %r: nothing reads these names in extra: %s. Correct or remove them.",
            connection.conn_id,
            ", ".join(
                f"{name!r}" + (f" (is {nearest} meant?)" if nearest else "")
                for name, nearest in unknown.items()
            ),
        )
    return account


def _extra(connection: Connection) -> dict[str, Any]:
    # extra_dejson turns what is not JSON into an empty dict and a log line; this is an error here.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError(
            f"Connection {connection.conn_id!r}: extra must be a JSON object such as "
            '{"app_id": "1250000001"}.'
        )
    # Airflow masks the values of names such as token and proxy in logs once it is told.
    mask_secret(extra)
    return extra


async def _tag(tagger: HttpLabeller, image: Image) -> TagResult:
    if tagger.is_quick(image):
        payload = tagger.load(image)
    else:
        payload = await asyncio.to_thread(tagger.load, image)
    return await tagger.call(image, await tagger.fit(image, payload))
