"""An account and its interface, without the network."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_imagetag.backends.accounts import account_of
from airflow_imagetag.labellers.base import Prepared
from airflow_imagetag.labellers.http import HttpLabeller
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.preflight import ImagePreflight, Oversize
from airflow_imagetag.models import Image
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import Payload, Request
from airflow_imagetag.services.registry import BUILT_IN
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.testing import Emulator


class Recording(RequestCodec):
    """Records the threads in which requests are built.

    :param facts: attributes of the class of the service.
    """

    def __init__(self, account: Account, **facts: Any) -> None:
        super().__init__(account)
        self.threads: list[threading.Thread] = []
        self._service = type("Toy", (type(self._service),), facts)(account)

    def request(self, payload: Payload) -> Request:
        """Build it, and record the thread."""
        self.threads.append(threading.current_thread())
        return super().request(payload)


@pytest.mark.parametrize(
    ("api", "encoding", "expected"),
    [
        ("picture_classify", "multipart", sys.maxsize),
        ("picture_classify", "base64", sys.maxsize),
        ("imagetag_detect", "multipart", sys.maxsize),
        ("DetectLabelPro", "multipart", 128 * 1024),
        ("DetectLabel", "multipart", 128 * 1024),
    ],
)
def test_images_that_are_built_without_a_thread(api, encoding, expected):
    """Multipart sends any image as it is; base64 of a large one takes a while."""
    assert api in BUILT_IN
    codec = RequestCodec(Account("1", "id", "key", api=api, image_encoding=encoding))
    assert codec.max_inline_bytes == expected
    assert not codec.needs_io


@pytest.mark.parametrize(
    ("facts", "is_in_loop"),
    [
        (lambda size: {"max_inline_bytes": size}, True),
        (lambda size: {"max_inline_bytes": size - 1}, False),
        (lambda size: {"max_inline_bytes": size, "needs_io": True}, False),
        (lambda size: {"max_inline_bytes": size, "is_quick": None}, True),
    ],
    ids=["small", "large", "needs I/O", "old method is not asked"],
)
def test_where_a_request_is_built(
    facts: Callable[[int], dict[str, Any]],
    is_in_loop: bool,
    emulator: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
):
    """In the event loop where the service says that it takes no time, else in a thread."""
    [content] = small_jpegs(1)
    account = dataclasses.replace(account_of(emulator.connection), image_encoding="base64")
    codec = Recording(account, **facts(len(content)))

    async def label() -> threading.Thread:
        preflight = ImagePreflight(account.api, codec.limits, Oversize.ERROR)
        async with HttpLabeller(
            account, codec, ContentLoader(), preflight, max_connections=1
        ) as labeller:
            prepared = Prepared(Image("a"), Payload(content=content))
            assert (await labeller.call(prepared)).labels
        return threading.current_thread()

    loop_thread = asyncio.run(label())
    assert (codec.threads == [loop_thread]) is is_in_loop
