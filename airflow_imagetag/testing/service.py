"""Answering one HTTP request: the checks in the service's order, and the faults between them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from airflow_imagetag.testing import tiia, v1_v2
from airflow_imagetag.testing.api import AnswerForm, Api, Head, ImageError, ImageRequest, Problem
from airflow_imagetag.testing.download import download
from airflow_imagetag.testing.garbage import spoil
from airflow_imagetag.testing.laboratory import Laboratory
from airflow_imagetag.testing.picture import UndecodableError
from airflow_imagetag.testing.refusal import BusinessCode, RefusalError, http_refusal, tiia_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_imagetag.testing.account import Account
    from airflow_imagetag.testing.api import Labels
    from airflow_imagetag.testing.chance import Chance
    from airflow_imagetag.testing.stats import Recorder


class ConnectionDroppedError(Exception):
    """The client gets no answer.

    :param billed_calls: how many calls are billed all the same.
    """

    def __init__(self, billed_calls: int = 0) -> None:
        super().__init__()
        self.billed_calls = billed_calls


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
        head = Head(request.method, request.path, request.headers, request.content_length)
        api = tiia.find(head) or v1_v2.find(head)
        self._recorder.arrived(now, request.headers.get("Authorization"), api.name if api else "")
        try:
            # What is for none of the APIs is refused in the way of the document's.
            return await self._answer(request, head, api or v1_v2.V2, self._chance(), now)
        except RefusalError as refusal:
            return self._refused(refusal)
        except ConnectionDroppedError as dropped:
            self._recorder.dropped(dropped.billed_calls)
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        finally:
            self._recorder.finished()

    async def _answer(
        self, request: web.BaseRequest, head: Head, api: Api, chance: Chance, now: float
    ) -> web.Response:
        if chance.drops():
            raise ConnectionDroppedError
        if chance.over_quota(now):
            return self._throttled(api, chance)
        await asyncio.sleep(chance.latency_seconds())
        _fail_with(chance.error(), api)
        api.admit(head)
        wanted = self._read(head, await _receive(request), api)
        first_attempt = wanted.url.encode("utf-8", "replace") if wanted.url else wanted.image
        _fail_with(chance.first_attempt_error(first_attempt), api)
        labels = await self._label(wanted, api)
        if chance.drops_after_work():
            raise ConnectionDroppedError(wanted.calls)
        return self._success(api.success(labels, wanted, self._answer_form), chance)

    def _read(self, head: Head, body: bytes, api: Api) -> ImageRequest:
        try:
            api.authenticate(head, body, self._account, self._clock())
        except RefusalError:
            self._recorder.rejected_signature()
            raise
        return api.read(head, body, self._account)

    async def _label(self, wanted: ImageRequest, api: Api) -> Labels:
        try:
            image = wanted.image
            if wanted.url:
                image = await download(self._session, wanted.url, max_bytes=api.max_image_bytes)
            api.check_image(image)
            image_id, labels = await self._laboratory.label(image)
        except UndecodableError as error:
            message = f"the image cannot be decoded: {error}"
            raise api.refuse(ImageError(Problem.UNDECODABLE, message)) from None
        except ImageError as error:
            raise api.refuse(error) from None
        self._recorder.billed(image_id, api.name, wanted.calls)
        return labels

    def _throttled(self, api: Api, chance: Chance) -> web.Response:
        self._recorder.over_limit()
        response = self._refused(api.throttle(chance.faults.throttle_status))
        if chance.faults.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(chance.faults.retry_after_seconds)
        return response

    def _refused(self, refusal: RefusalError) -> web.Response:
        code = refusal.code if refusal.status == 200 else None
        return self._json(refusal.status, code, json.dumps(_error_answer(refusal)).encode())

    def _success(self, answer: dict[str, Any], chance: Chance) -> web.Response:
        garbage = chance.garbage()
        if garbage is None:
            return self._json(200, int(BusinessCode.OK), json.dumps(answer).encode())
        self._recorder.garbage()
        self._recorder.answered(200, None)
        body, content_type = spoil(garbage, answer)
        return web.Response(body=body, content_type=content_type)

    def _json(self, status: int, code: int | str | None, body: bytes) -> web.Response:
        self._recorder.answered(status, code)
        return web.Response(status=status, body=body, content_type="application/json")


def _error_answer(refusal: RefusalError) -> dict[str, Any]:
    if isinstance(refusal.code, str):
        return tiia.respond({"Error": {"Code": refusal.code, "Message": refusal.message}})
    return {"code": refusal.code, "message": refusal.message}


def _fail_with(error: int | str | None, api: Api) -> None:
    """Raise what a fault asks for: an HTTP status or, where the API has them, a code as text."""
    message = "a fault that the test asked for"
    if isinstance(error, int):
        raise http_refusal(error, message)
    if error is not None and api.has_text_codes:
        raise tiia_refusal(error, message)


async def _receive(request: web.BaseRequest) -> bytes:
    """Return the body; a client that waits for permission to send it, as curl does, gets it."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        return await request.content.read()
    except ConnectionResetError:
        # The client died while it sent: nobody is left to answer.
        raise ConnectionDroppedError from None
