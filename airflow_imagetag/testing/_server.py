"""The HTTP server and the answers to its requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web

from airflow_imagetag.testing import _cos, _cos_signature, _recognition, _tiia
from airflow_imagetag.testing._api import (
    STATS_PATH,
    AnswerForm,
    Api,
    BusinessCode,
    ImageProblem,
    ImageRequest,
    RefusalError,
    RequestHead,
    UnusableImageError,
    http_refusal,
)
from airflow_imagetag.testing._fault_injector import spoil
from airflow_imagetag.testing._labels import CachedRecognizer, UndecodableError
from airflow_imagetag.testing.stats import Stats

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from airflow_imagetag.testing._api import EmulatorAccount, Labels
    from airflow_imagetag.testing._cos import Bucket
    from airflow_imagetag.testing._fault_injector import FaultInjector
    from airflow_imagetag.testing._recorder import Recorder
    from airflow_imagetag.testing.faults import Faults


_STOP_SECONDS: Final = 0.05
"""Maximum time that a stop waits for the requests in progress."""


@asynccontextmanager
async def serve(
    *,
    account: EmulatorAccount,
    bucket: Bucket,
    fault_injector: Callable[[], FaultInjector],
    recorder: Recorder,
    clock: Callable[[], float],
    answer_form: AnswerForm,
    recognizer: CachedRecognizer,
    fetch_timeout_seconds: float,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
) -> AsyncIterator[int]:
    """Serve during the ``with`` block; its value is the port.

    The other parameters are those of :class:`airflow_imagetag.testing.emulator.Emulator` and of
    :class:`airflow_imagetag.testing._server.RequestHandler`.

    :raises OSError: the address cannot be listened on.
    """
    timeout = aiohttp.ClientTimeout(total=fetch_timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        service = RequestHandler(
            account=account,
            bucket=bucket,
            fault_injector=fault_injector,
            recorder=recorder,
            clock=clock,
            session=session,
            answer_form=answer_form,
            recognizer=recognizer,
        )
        # The vendor documents no compressed body, and one could unpack to more than the memory.
        server = _StoppableServer(service.handle, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        try:
            await runner.setup()
            site = web.TCPSite(runner, host, port, ssl_context=ssl_context, backlog=1024)
            await site.start()
            yield int(runner.addresses[0][1])
        finally:
            await server.stop(runner)
            service.close()


class _StoppableServer(web.Server):
    """Closes every connection at its stop without waiting for clients."""

    _is_stopping = False

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Abort a connection that was accepted just before the stop."""
        super().connection_made(handler, transport)
        if self._is_stopping:
            transport.abort()

    async def stop(self, runner: web.ServerRunner) -> None:
        """Stop listening and close every connection."""
        self._is_stopping = True
        transports = [protocol.transport for protocol in self.connections]
        await runner.cleanup()
        # An orderly end of TLS needs the client's answer, and the loop ends before that arrives.
        for transport in transports:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)


class ConnectionDroppedError(Exception):
    """Raised to close the connection without an answer.

    :param billed_calls: number of calls that are billed nevertheless.
    """

    def __init__(self, billed_calls: int = 0) -> None:
        super().__init__()
        self.billed_calls = billed_calls


class RequestHandler:
    """Answer requests, as a low-level handler of aiohttp.

    :param account: account that requests must be signed with.
    :param bucket: the objects that requests of COS may name.
    :param fault_injector: returns the faults in force; called once for each request.
    :param recorder: counts the events.
    :param clock: wall clock in Unix seconds, for the check of signatures.
    :param session: fetches images that requests name by URL.
    :param answer_form: form of a V2 answer.
    :param recognizer: labels images; closed with the server.
    """

    def __init__(
        self,
        *,
        account: EmulatorAccount,
        bucket: Bucket,
        fault_injector: Callable[[], FaultInjector],
        recorder: Recorder,
        clock: Callable[[], float],
        session: aiohttp.ClientSession,
        answer_form: AnswerForm,
        recognizer: CachedRecognizer,
    ) -> None:
        self._account = account
        self._bucket = bucket
        self._cos = _cos.CosApi(bucket)
        self._fault_injector = fault_injector
        self._recorder = recorder
        self._clock = clock
        self._session = session
        self._answer_form = answer_form
        self._recognizer = recognizer

    def close(self) -> None:
        """Release the threads."""
        self._recognizer.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request, or close its connection if a fault demands it."""
        if (request.method, request.path) == ("GET", STATS_PATH):
            return web.json_response(_as_json_object(self._recorder.snapshot()))
        now = asyncio.get_running_loop().time()
        head = RequestHead(
            request.method,
            request.path,
            request.headers,
            request.content_length,
            request.raw_path,
        )
        is_cos = _cos.is_cos(head)
        if is_cos and not _cos.is_for_labels(head):
            return self._from_bucket(head)
        api = self._cos if is_cos else _tiia.find(head) or _recognition.find(head)
        api_name = api.name if api else ""
        self._recorder.arrived(now, request.headers.get("Authorization"), api_name)
        try:
            # A request for no API is refused as V2 refuses.
            return await self._answer(
                request, head, api or _recognition.V2, self._fault_injector(), now
            )
        except RefusalError as refusal:
            return self._refused(refusal, api or _recognition.V2, api_name)
        except ConnectionDroppedError as dropped:
            self._recorder.dropped(dropped.billed_calls)
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        finally:
            self._recorder.finished()

    def _from_bucket(self, head: RequestHead) -> web.Response:
        """Return an object, or a page of the listing; neither is a request of the label service."""
        try:
            _cos_signature.verify(head, self._account, now=self._clock())
            if head.method not in ("GET", "HEAD"):
                raise RefusalError(405, "MethodNotAllowed", f"no such method: {head.method}")
            if head.object_path == "/":
                return web.Response(
                    body=_cos.listing(self._bucket, head), content_type=self._cos.content_type
                )
            found = self._bucket.get(head.object_path[1:])
        except RefusalError as refusal:
            body = self._cos.encode(self._cos.error_answer(refusal))
            return web.Response(
                status=refusal.status, body=body, content_type=self._cos.content_type
            )
        if head.method == "GET":
            self._recorder.downloaded()
        return web.Response(body=found.content, headers={"ETag": f'"{found.etag}"'})

    async def _answer(
        self,
        request: web.BaseRequest,
        head: RequestHead,
        api: Api,
        fault_injector: FaultInjector,
        now: float,
    ) -> web.Response:
        if fault_injector.drops():
            raise ConnectionDroppedError
        if fault_injector.over_quota(now):
            self._recorder.over_limit()
            raise _over_quota(api, fault_injector.faults)
        await asyncio.sleep(fault_injector.latency_seconds())
        _fail_with(fault_injector.error(), api)
        api.admit(head)
        wanted = self._read(head, await _receive(request), api)
        first_attempt = wanted.url.encode("utf-8", "replace") if wanted.url else wanted.image
        _fail_with(fault_injector.first_attempt_error(first_attempt), api)
        labels = await self._label(wanted, api)
        if fault_injector.drops_after_work():
            raise ConnectionDroppedError(wanted.calls)
        return self._success(api.success(labels, wanted, self._answer_form), fault_injector, api)

    def _read(self, head: RequestHead, body: bytes, api: Api) -> ImageRequest:
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
            image_id, labels = await self._recognizer.label(image)
        except UndecodableError as error:
            message = f"the image cannot be decoded: {error}"
            raise api.refuse(UnusableImageError(ImageProblem.UNDECODABLE, message)) from None
        except UnusableImageError as error:
            raise api.refuse(error) from None
        self._recorder.billed(image_id, api.name, wanted.calls)
        return labels

    def _refused(self, refusal: RefusalError, api: Api, api_name: str) -> web.Response:
        self._recorder.refused(api_name)
        has_code = refusal.status == 200 or isinstance(refusal.code, str)
        body = api.encode(api.error_answer(refusal))
        response = self._respond(refusal.status, refusal.code if has_code else None, body, api)
        if refusal.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(refusal.retry_after_seconds)
        return response

    def _success(
        self, answer: dict[str, Any], fault_injector: FaultInjector, api: Api
    ) -> web.Response:
        garbage = fault_injector.garbage()
        if garbage is None:
            return self._respond(200, int(BusinessCode.OK), api.encode(answer), api)
        self._recorder.garbage()
        self._recorder.answered(200, None)
        body, content_type = spoil(garbage, answer, api)
        return web.Response(body=body, content_type=content_type)

    def _respond(self, status: int, code: int | str | None, body: bytes, api: Api) -> web.Response:
        self._recorder.answered(status, code)
        return web.Response(status=status, body=body, content_type=api.content_type)


def _as_json_object(stats: Stats) -> dict[str, Any]:
    """Return every count by its name; ``dataclasses.asdict`` cannot copy read-only mappings."""
    values = {field.name: getattr(stats, field.name) for field in fields(stats)}
    return {name: dict(n) if isinstance(n, Mapping) else n for name, n in values.items()}


def _over_quota(api: Api, faults: Faults) -> RefusalError:
    refusal = api.throttle(faults.throttle_status)
    refusal.retry_after_seconds = faults.retry_after_seconds
    return refusal


def _fail_with(error: int | str | None, api: Api) -> None:
    """Raise the error of a fault: an HTTP status or, if the API has them, a text code."""
    message = "an injected fault"
    if isinstance(error, int):
        raise http_refusal(error, message)
    if error is not None and (refusal := api.fault(error, message)):
        raise refusal


async def _receive(request: web.BaseRequest) -> bytes:
    """Return the body, after a "100 Continue" to a client that expects it, such as curl."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        return await request.content.read()
    except ConnectionResetError:
        # The client closed the connection before the end of its body.
        raise ConnectionDroppedError from None


async def download(session: aiohttp.ClientSession, url: str, *, max_bytes: int) -> bytes:
    """Download the image behind a URL.

    :param session: session whose timeout limits the download.
    :param url: URL that the request named.
    :param max_bytes: maximum size of the image.
    :raises UnusableImageError: the download failed, or gave no bytes or more than the maximum.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise _unavailable("it is not http or https", ImageProblem.URL_INVALID)
    try:
        async with session.get(url) as response:
            if response.status != 200:
                raise _unavailable(f"HTTP status {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > max_bytes:
                    raise _unavailable(f"it is over {max_bytes} bytes", ImageProblem.TOO_LARGE)
    except TimeoutError:
        raise _unavailable("it took too long") from None
    # aiohttp raises a bare ValueError for some invalid URLs.
    except (aiohttp.InvalidURL, ValueError) as error:
        raise _unavailable(type(error).__name__, ImageProblem.URL_INVALID) from None
    except (aiohttp.ClientError, OSError) as error:
        raise _unavailable(type(error).__name__) from None
    if not content:
        raise UnusableImageError(ImageProblem.EMPTY, "the image behind the url is empty")
    return bytes(content)


def _unavailable(
    reason: str, problem: ImageProblem = ImageProblem.NOT_DOWNLOADED
) -> UnusableImageError:
    return UnusableImageError(problem, f"the url could not be downloaded: {reason}")
