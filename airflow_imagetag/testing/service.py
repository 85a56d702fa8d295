"""Answering one HTTP request: the checks in the service's order, and the faults between them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import aiohttp  # noqa: TID253 - only a started emulator loads this
from aiohttp import web  # noqa: TID253 - only a started emulator loads this

from airflow_imagetag.testing.download import download
from airflow_imagetag.testing.garbage import spoil
from airflow_imagetag.testing.laboratory import Laboratory
from airflow_imagetag.testing.picture import UndecodableError
from airflow_imagetag.testing.protocols import BY_PATH, AnswerForm, Labels, Protocol
from airflow_imagetag.testing.refusal import (
    BusinessCode,
    RefusalError,
    business_refusal,
    http_refusal,
)
from airflow_imagetag.testing.verification import Account, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_imagetag.testing.chance import Chance
    from airflow_imagetag.testing.stats import Recorder

MAX_BODY_BYTES: Final = 6 * 1024 * 1024
"""The vendor limits the whole body to 6 MB."""


class ConnectionDroppedError(Exception):
    """The client gets no answer."""


class Service:
    """Answers requests, as a low-level handler of aiohttp.

    :param account: the account that requests must be signed with.
    :param chance: gives the faults in force; asked once for each request.
    :param recorder: counts what happens.
    :param clock: wall clock, in Unix seconds; signatures are checked against it.
    :param session: fetches images that requests name by URL.
    :param answer_form: which of the document's two forms a V2 answer has.
    """

    def __init__(
        self,
        *,
        account: Account,
        chance: Callable[[], Chance],
        recorder: Recorder,
        clock: Callable[[], float],
        session: aiohttp.ClientSession,
        answer_form: AnswerForm,
    ) -> None:
        self._account = account
        self._chance = chance
        self._recorder = recorder
        self._clock = clock
        self._session = session
        self._answer_form = answer_form
        self._laboratory = Laboratory()

    def close(self) -> None:
        """Release the threads."""
        self._laboratory.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request, or close its connection where a fault says so."""
        now = asyncio.get_running_loop().time()
        self._recorder.arrived(now, request.headers.get("Authorization"))
        try:
            return await self._answer(request, self._chance(), now)
        except RefusalError as refusal:
            code = refusal.code if refusal.status == 200 else None
            return self._json(refusal.status, code, _error_body(refusal))
        except ConnectionDroppedError:
            self._recorder.dropped()
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        finally:
            self._recorder.finished()

    async def _answer(self, request: web.BaseRequest, chance: Chance, now: float) -> web.Response:
        if chance.drops():
            raise ConnectionDroppedError
        if chance.over_quota(now):
            return self._throttled(chance)
        await asyncio.sleep(chance.latency_seconds())
        _fail_with(chance.error_status())
        protocol = self._admit(request)
        await _allow_body(request)
        try:
            body = await request.content.read()
        except ConnectionResetError:
            # The client died while it sent: nobody is left to answer.
            raise ConnectionDroppedError from None
        content_type = request.headers.get("Content-Type", "")
        wanted = protocol.read(content_type, body, self._account.app_id)
        first_attempt = wanted.url.encode("utf-8", "replace") if wanted.url else wanted.image
        _fail_with(chance.first_attempt_status(first_attempt))
        image = wanted.image
        if wanted.url:
            image = await download(self._session, wanted.url, max_bytes=MAX_BODY_BYTES)
        labels = await self._label(image)
        if chance.drops_after_work():
            raise ConnectionDroppedError
        return self._success(protocol.success(labels, self._answer_form), chance)

    def _admit(self, request: web.BaseRequest) -> Protocol:
        """Check all that the headers tell, before the body is read."""
        protocol = BY_PATH.get(request.path)
        if protocol is None:
            raise http_refusal(404, f"no such path: {request.path}")
        if request.method != "POST":
            raise http_refusal(424, f"method not found: {request.method}")
        length = request.content_length
        if length is None:
            raise http_refusal(411, "the request has no Content-Length")
        if length > MAX_BODY_BYTES:
            raise http_refusal(413, f"the body is over {MAX_BODY_BYTES} bytes")
        try:
            verify(request.headers.get("Authorization"), self._account, now=self._clock())
        except RefusalError:
            self._recorder.rejected_signature()
            raise
        return protocol

    async def _label(self, image: bytes) -> Labels:
        try:
            image_id, labels = await self._laboratory.label(image)
        except UndecodableError as error:
            message = f"the image cannot be decoded: {error}"
            raise business_refusal(BusinessCode.UNDECODABLE, message) from None
        self._recorder.billed(image_id)
        return labels

    def _throttled(self, chance: Chance) -> web.Response:
        self._recorder.over_limit()
        refusal = http_refusal(chance.faults.throttle_status, "over the quota of requests")
        response = self._json(refusal.status, None, _error_body(refusal))
        if chance.faults.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(chance.faults.retry_after_seconds)
        return response

    def _success(self, answer: dict[str, Any], chance: Chance) -> web.Response:
        garbage = chance.garbage()
        if garbage is None:
            return self._json(200, int(BusinessCode.OK), json.dumps(answer).encode())
        self._recorder.garbage()
        self._recorder.answered(200, None)
        body, content_type = spoil(garbage, answer)
        return web.Response(body=body, content_type=content_type)

    def _json(self, status: int, code: int | None, body: bytes) -> web.Response:
        self._recorder.answered(status, code)
        return web.Response(status=status, body=body, content_type="application/json")


def _error_body(refusal: RefusalError) -> bytes:
    return json.dumps({"code": refusal.code, "message": refusal.message}).encode()


def _fail_with(status: int | None) -> None:
    if status is not None:
        raise http_refusal(status, "a fault that the test asked for")


async def _allow_body(request: web.BaseRequest) -> None:
    """Tell a client that waits for permission, as curl does, to send its body."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
