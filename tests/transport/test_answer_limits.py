"""No answer of the service takes more memory or time than the limits."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import select
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from airflow_imagetag.engine.flow.retry_policy import is_unreadable_success
from airflow_imagetag.errors import AnswerLostError, Billing, ImageTagError, MalformedAnswerError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, Request
from airflow_imagetag.transport import blocking, nonblocking
from airflow_imagetag.transport.body import BodyTooLargeError, DamagedBodyError, decoded
from airflow_imagetag.transport.headers import MAX_ANSWER_BYTES, USER_AGENT

LABELS = b'{"code": 0, "labels": []}'
CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"
MAX_PEAK_BYTES = 40_000_000

Send = Callable[..., HttpResponse]
Handle = Callable[[socket.socket], None]


def send_blocking(at: Account, limit: int = MAX_ANSWER_BYTES) -> HttpResponse:
    """Send one request with requests."""
    with blocking.new_session() as session:
        return blocking.send(session, at, request_to(at), max_answer_bytes=limit)


def send_nonblocking(at: Account, limit: int = MAX_ANSWER_BYTES) -> HttpResponse:
    """Send one request with aiohttp."""

    async def main() -> HttpResponse:
        async with nonblocking.Connections(
            at, max_connections=2, max_answer_bytes=limit
        ) as connections:
            return await connections.send(request_to(at))

    return asyncio.run(main())


@pytest.fixture(params=[send_blocking, send_nonblocking], ids=["blocking", "nonblocking"])
def send(request: pytest.FixtureRequest) -> Send:
    """Give one client after the other."""
    return request.param


def request_to(at: Account) -> Request:
    """Make a request."""
    return Request(f"{at.endpoint}/label", {"Content-Type": "application/json"}, b"{}")


class Service:
    """A socket that answers each connection; it records the requests and the clients that left.

    :param handle: answers one connection, after the request.
    """

    def __init__(self, handle: Handle) -> None:
        self.requests: list[bytes] = []
        self.left = threading.Event()
        self._handle = handle
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._listener.close()

    def account(self, timeout_seconds: float = 60) -> Account:
        """Return an account whose endpoint is this service."""
        return Account("1", "id", "key", self.endpoint, timeout_seconds=timeout_seconds)

    def _accept(self) -> None:
        while not self._ending.is_set():
            if select.select([self._listener], [], [], 0.02)[0]:
                connection = self._listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(30)
                    self.requests.append(connection.recv(65536))
                    self._handle(connection)
                    while connection.recv(65536):
                        pass
                self.left.set()


def says(head: str, body: bytes = b"", status: int = 200) -> Handle:
    """Answer with these bytes, and leave the connection open."""
    data = b"HTTP/1.1 %d Some\r\n" % status + head.encode() + b"\r\n" + body
    return lambda connection: connection.sendall(data)


def floods(head: str, piece: bytes, status: int = 200) -> Handle:
    """Send a piece again and again, as fast as the client takes it."""

    def handle(connection: socket.socket) -> None:
        says(head, status=status)(connection)
        while True:
            connection.sendall(piece)

    return handle


def drips(start: bytes, piece: bytes) -> Handle:
    """Send a piece now and then, well within the timeout of one read, until the client leaves."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(start)
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(piece)

    return handle


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Measure the largest memory of the test."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def packed(size: int, encoding: str) -> bytes:
    """Pack this many zeros."""
    window = {"gzip": 31, "deflate": 15, "raw deflate": -15}[encoding]
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    zeros = bytes(1_000_000)
    pieces = [packer.compress(zeros) for _ in range(size // len(zeros))]
    return b"".join([*pieces, packer.flush()])


def refused(send: Send, service: Service, limit: int = MAX_ANSWER_BYTES) -> ImageTagError:
    """Return the error of an answer that is too large; its connection is closed."""
    with pytest.raises(ImageTagError) as caught:
        send(service.account(), limit)
    error = caught.value
    assert type(error) is MalformedAnswerError
    assert error.billing is Billing.UNKNOWN
    assert is_unreadable_success(error), "it would be asked as often as a failure"
    assert service.left.wait(30)
    assert len(service.requests) == 1
    return error


@pytest.mark.parametrize("status", [200, 400, 500, 503])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_a_bomb(send, encoding, status, peak):
    """A small body that unpacks to a large one costs no more memory than the limit."""
    body = packed(100_000_000, encoding)
    head = f"Content-Encoding: {encoding.split()[-1]}\r\nContent-Length: {len(body)}\r\n"
    with Service(says(head, body, status)) as service:
        error = refused(send, service)
    assert error.status == status
    assert peak() < MAX_PEAK_BYTES


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("", bytes(100_000)),
        ("Transfer-Encoding: chunked\r\n", CHUNK),
        ("Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n" * 10_000),
        # Empty blocks of deflate: they unpack to nothing.
        ("Content-Encoding: deflate\r\n", b"\x00\x00\x00\xff\xff" * 20_000),
    ],
    ids=["to the end", "chunks", "small chunks", "packed nothing"],
)
def test_an_endless_body(send, head, piece, status, peak):
    """It is read up to the limit, and the connection is closed."""
    with Service(floods(head, piece, status)) as service:
        error = refused(send, service, limit=50_000)
    assert "50000 bytes" in error.message
    assert peak() < MAX_PEAK_BYTES


def test_a_length_over_the_limit(send):
    """Nothing is waited for where the headers tell that the answer is too large."""
    with Service(says("Content-Length: 99999999999\r\n", b"{")) as service:
        refused(send, service)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\n", b"x"),
    ],
    ids=["interim", "header", "body", "to the end", "chunks", "trailers", "error"],
)
def test_an_answer_that_drips(send, start, piece):
    """The time limit is for all of it: the connection is closed at its end."""
    with Service(drips(start, piece)) as service:
        with pytest.raises(AnswerLostError) as caught:
            send(service.account(timeout_seconds=0.5))
        assert service.left.wait(30)
    assert caught.value.billing is Billing.UNKNOWN
    assert len(service.requests) == 1


def test_a_name_server_that_says_nothing(send, monkeypatch):
    """The time limit includes the look-up of the endpoint's name, and nothing was sent."""
    released = threading.Event()

    def look_up(*args: object, **options: object) -> list[object]:
        released.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    at = Account("1", "id", "key", "http://slow.example", timeout_seconds=0.3)
    try:
        with pytest.raises(ImageTagError) as caught:
            send(at)
        assert not released.is_set()
    finally:
        released.set()
    assert caught.value.billing is Billing.NOT_SENT


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("size", [0, 1000, MAX_ANSWER_BYTES])
def test_an_answer_within_the_limit(send, size, members):
    """A server that packs although it was not asked to is understood; the limit is inclusive."""
    content = bytes(size)
    halves = [content] if members == 1 else [content[: size // 2], content[size // 2 :]]
    body = b"".join(map(gzip.compress, halves))
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
    with Service(says(head, body)) as service:
        answer = send(service.account())
    assert answer.body == content


def test_another_limit(send):
    """The limit is a parameter."""
    with Service(says(f"Content-Length: {len(LABELS)}\r\n", LABELS)) as service:
        assert send(service.account(), len(LABELS)).body == LABELS
        with pytest.raises(MalformedAnswerError):
            send(service.account(), len(LABELS) - 1)


def test_an_encoding_that_was_not_asked_for(send):
    """It will be the same next time: not repeated as a failure is."""
    with Service(says("Content-Encoding: br\r\nContent-Length: 3\r\n", b"abc")) as service:
        assert "encoding" in refused(send, service).message


def test_the_headers_of_a_request(send):
    """The client names itself and asks for an answer that is not packed."""
    with Service(says("Content-Length: 2\r\n", b"{}")) as service:
        send(service.account())
    head = service.requests[0].lower()
    assert f"user-agent: {USER_AGENT}\r\n".encode() in head
    assert b"accept-encoding: identity\r\n" in head


def test_many_members_are_not_unpacked():
    """Each of them would copy the rest of the body."""
    with pytest.raises(DamagedBodyError):
        decoded(gzip.compress(b"", mtime=0) * 1000, "gzip", 1000)


@pytest.mark.parametrize(
    "body",
    [b"abcd", gzip.compress(b"ab", mtime=0)[:-1], gzip.compress(LABELS, mtime=0)[:12]],
    ids=["plain", "cut", "cut in the middle"],
)
def test_a_damaged_body(body):
    """It is not taken for a whole one."""
    with pytest.raises(DamagedBodyError):
        decoded(body, "gzip", 1000)


def test_padding_after_a_body():
    """Zeros after the last member are ignored."""
    assert decoded(gzip.compress(LABELS) + bytes(8), "x-gzip", 1000) == LABELS


@pytest.mark.parametrize(
    ("encoding", "size"),
    [
        (encoding, size)
        for encoding in ("", "identity", "GZIP", " gzip ,identity")
        for size in (10, 11)
    ],
)
def test_the_limit_of_a_body(encoding, size):
    """It holds for what is unpacked, in every spelling of the encoding."""
    body = gzip.compress(bytes(size)) if "gzip" in encoding.lower() else bytes(size)
    limit = 10
    if size > limit:
        with pytest.raises(BodyTooLargeError):
            decoded(body, encoding, limit)
    else:
        assert decoded(body, encoding, limit) == bytes(size)
