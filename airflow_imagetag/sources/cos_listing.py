"""Private: list a bucket of Tencent Cloud COS with the account that labels its objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_imagetag.backends.accounts import account_of
from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.errors import (
    ConfigurationError,
    ImageTagError,
    StorageError,
    TransientError,
    UnknownConnectionError,
)
from airflow_imagetag.runtime.retries import BlockingRetrier
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import split_object
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.ci.detect_label import CiDetectLabel
from airflow_imagetag.services.ci.listing import ListedObject, Page, page_params, read_page
from airflow_imagetag.services.ci.signing import Signer

if TYPE_CHECKING:
    import requests

COS_SCHEME = "cos"

RETRIER = BlockingRetrier(10.0, first_wait_seconds=0.5, max_wait_seconds=4.0)
"""Repeats the request for a page while COS fails or slows down."""


def list_bucket(path: str, conn_id: str | None) -> Iterator[ListedObject]:
    """Yield the objects below a path, one page in memory at a time.

    :param path: a URI such as ``cos://photos-1250000001/2026/``.
    :param conn_id: connection of the account, if the path names none.
    :raises ConfigurationError: the path or its connection cannot be used.
    :raises StorageError: the storage failed.
    """
    from airflow_imagetag.transport.blocking import new_session

    storage, _, folder = split_object(path)
    named, _, bucket = storage.partition("://")[2].rpartition("@")
    account = _account(named or conn_id or DEFAULT_CONN_ID, bucket)
    folder = folder.rstrip("/")
    prefix = f"{folder}/" if folder else ""
    marker: str | None = ""
    with new_session() as session:
        while marker is not None:
            page = _page(session, account, prefix, marker)
            yield from page.objects
            marker = page.next_marker


def _account(conn_id: str, bucket: str) -> Account:
    from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, BaseHook

    try:
        account = account_of(BaseHook.get_connection(conn_id))
    except AirflowNotFoundException:
        raise UnknownConnectionError(
            f"There is no connection {conn_id!r}. Name the connection of the account that labels "
            "the bucket's objects as conn_id."
        ) from None
    if account.api != CiDetectLabel.api:
        raise ConfigurationError(
            f"Connection {conn_id!r} has the api {account.api!r}, and a path cos:// is listed with "
            f"one of {CiDetectLabel.api!r}. For another api, name the bucket as s3:// with a "
            "connection of type aws whose endpoint_url is that of COS."
        )
    if account.bucket != bucket:
        raise ConfigurationError(
            f"Connection {conn_id!r} has the bucket {account.bucket!r}, and the path names "
            f"{redact(bucket)!r}. Correct one of them."
        )
    return account


def _page(session: requests.Session, account: Account, prefix: str, marker: str) -> Page:
    from airflow_imagetag.transport.blocking import send

    def attempt() -> Page:
        request = Signer(account).get("", page_params(prefix, marker))
        return read_page(send(session, account, request), account.bucket)

    try:
        return RETRIER.call(
            attempt, is_transient=lambda error, _: isinstance(error, TransientError)
        )
    except TransientError as error:
        raise StorageError(f"COS cannot list {account.bucket}: {error.message}") from None
    except ConfigurationError:
        raise
    except ImageTagError as error:
        raise ConfigurationError(f"COS refuses to list {account.bucket}: {error.message}") from None
