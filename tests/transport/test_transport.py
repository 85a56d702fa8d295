"""Sending requests with both HTTP clients: they behave alike at every fault of the network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trustme

from airflow_imagetag.backends.accounts import account_of
from airflow_imagetag.errors import (
    AnswerLostError,
    AuthenticationError,
    Billing,
    ConfigurationError,
    ConnectionFailedError,
    Decision,
    ImageTagError,
)
from airflow_imagetag.models import Image
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, Payload, Request
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.testing import Emulator, Faults
from airflow_imagetag.transport import blocking, nonblocking

SIGNATURE = "5ecre7Signature"
BODY = b'{"app_id": "1", "url": "https://host/a"}'
GOOD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\n{}"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

Send = Callable[..., HttpResponse]


def send_blocking(account: Account, *sent: Request) -> HttpResponse:
    """Send with requests; the last answer counts."""
    with blocking.new_session() as session:
        answers = [blocking.send(session, account, request) for request in sent]
    return answers[-1]


def send_nonblocking(account: Account, *sent: Request) -> HttpResponse:
    """Send with aiohttp; the last answer counts."""

    async def main() -> HttpResponse:
        async with nonblocking.Connections(account, max_connections=2) as connections:
            answers = [await connections.send(request) for request in sent]
        return answers[-1]

    return asyncio.run(main())


@pytest.fixture(params=[send_blocking, send_nonblocking], ids=["blocking", "nonblocking"])
def send(request: pytest.FixtureRequest) -> Send:
    """Give one client after the other."""
    return request.param


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES), *CA_VARIABLES, "NETRC"):
        monkeypatch.delenv(name, raising=False)


def account(endpoint: str, **fields: Any) -> Account:
    """Make an account at an endpoint."""
    return Account("1250000001", "AKIDlogin", "5ecre7Key", endpoint, **fields)


def request_to(
    endpoint: str, body: bytes | tuple[bytes, ...] = BODY, content_type: str = "application/json"
) -> Request:
    """Make a signed request with a JSON body, unless told otherwise."""
    headers = {"Authorization": SIGNATURE, "Content-Type": content_type}
    return Request(f"{endpoint}/imagetag/picture_classify", headers, body)


def fails(send: Send, at: Account) -> ImageTagError:
    """Return the error of sending one request; it repeats neither signature nor key."""
    with pytest.raises(ImageTagError) as caught:
        send(at, request_to(at.endpoint))
    error = caught.value
    assert "5ecre7" not in repr(error)
    assert error.__suppress_context__
    return error


class Server:
    """A socket that answers each connection with a function; it remembers the requests.

    :param handle: answers one connection, after its request was read.
    :param read: whether to read the request first.
    """

    def __init__(self, handle: Callable[[socket.socket], None], *, read: bool = True) -> None:
        self.requests: list[bytes] = []
        self._handle = handle
        self._read = read
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Server:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
        self._listener.close()

    def hang(self, connection: socket.socket) -> None:
        """Keep a connection open and say nothing until the client or the test ends."""
        while not self._ending.is_set():
            if select.select([connection], [], [], 0.02)[0] and not connection.recv(65536):
                return

    def _accept(self) -> None:
        while not self._ending.is_set():
            if select.select([self._listener], [], [], 0.02)[0]:
                thread = threading.Thread(target=self._serve, args=(self._listener.accept()[0],))
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            if self._read:
                self.requests.append(read_request(connection))
            self._handle(connection)


def read_request(connection: socket.socket) -> bytes:
    """Read one whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    missing = int(headers_of(head).get("content-length", 0)) - len(body)
    pieces = [head, b"\r\n\r\n", body]
    while missing > 0 and (more := connection.recv(65536)):
        pieces.append(more)
        missing -= len(more)
    return b"".join(pieces)


def headers_of(request: bytes) -> dict[str, str]:
    """Return the headers of a request, with names in lower case."""
    lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }


def says(data: bytes) -> Callable[[socket.socket], None]:
    """Answer with these bytes and close."""
    return lambda connection: connection.sendall(data)


def test_an_answer_comes_as_it_is(send):
    """Status, body and headers are given back, the headers' names in lower case."""
    with Server(
        says(b"HTTP/1.1 418 Teapot\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\nabc")
    ) as to:
        answer = send(account(to.endpoint), request_to(to.endpoint))
    assert (answer.status, answer.body) == (418, b"abc")
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("path", ["", "?key=1#part"])
@pytest.mark.parametrize("encoding", ["multipart", "base64", "url"])
def test_the_emulator_labels_a_photograph(send, encoding, path, emulator, photographs):
    """Signed and sent in any of the three ways, a photograph gets labels from a real server."""
    at = account(emulator.url, image_encoding="multipart" if encoding == "url" else encoding)
    login, password = emulator.connection.login, emulator.connection.password
    at = replace(at, api="picture_classify", secret_id=login, secret_key=password)
    caller = RequestCodec(at)
    content = photographs[0].read_bytes()
    if encoding == "url":
        page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
        with Server(says(page + content)) as images:
            payload = Payload(url=f"{images.endpoint}/a.jpg{path}")
            answer = send(at, caller.request(payload))
    else:
        answer = send(at, caller.request(Payload(content=content)))
    assert answer.status == 200
    assert b'"code": 0' in answer.body
    assert emulator.stats.billed == 1


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("content", [BODY, b"x" * 3_000_000, b""], ids=["small", "large", "empty"])
def test_the_length_is_always_sent(send, content, content_type):
    """Content-Length is there and right, and the body is sent as it is, not in chunks."""
    with Server(says(GOOD)) as to:
        # In one piece, and in several.
        for sent in (content, (b"", content[:1000], content[1000:])):
            send(account(to.endpoint), request_to(to.endpoint, sent, content_type))
    request, other = to.requests
    assert request == other
    head, _, body = request.partition(b"\r\n\r\n")
    headers = headers_of(head)
    assert int(headers["content-length"]) == len(body)
    assert "transfer-encoding" not in headers
    assert headers["authorization"] == SIGNATURE
    assert headers["content-type"] == content_type
    assert body == content


def test_a_refusal_before_the_body_is_read():
    """The answer counts, and the connection, with half a body in it, takes no other request."""
    seen: list[socket.socket] = []

    def refuse_the_first(connection: socket.socket) -> None:
        seen.append(connection)
        if len(seen) > 1:
            read_request(connection)
            connection.sendall(GOOD)
            return
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        to.hang(connection)

    with Server(refuse_the_first, read=False) as to:
        # A busy machine takes seconds to send the large body.
        at = account(to.endpoint, timeout_seconds=60)

        async def main() -> list[int]:
            large = request_to(to.endpoint, (b"head", bytes(20_000_000), b"tail"))
            async with nonblocking.Connections(at, max_connections=1) as connections:
                sent = (large, request_to(to.endpoint), large)
                return [(await connections.send(request)).status for request in sent]

        assert asyncio.run(main()) == [413, 200, 200]


def closed_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "nowhere.invalid"], ids=["connection refused", "unknown name"]
)
def test_no_connection(send, host):
    """Nothing was sent: it is retried, and the message says where to look."""
    error = fails(send, account(f"http://{host}:{closed_port()}", timeout_seconds=5))
    assert type(error) is ConnectionFailedError
    assert error.decision is Decision.RETRY
    assert error.billing is Billing.NOT_SENT
    assert host in error.message


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"], ids=["empty", "long"])
def test_a_host_that_no_name_can_be(send, host):
    """A name that cannot even be looked up is an error of ours."""
    error = fails(send, account(f"http://{host}"))
    assert isinstance(error, (ConfigurationError, ConnectionFailedError))
    assert error.billing is Billing.NOT_SENT


def test_a_connection_that_never_stands_times_out(send):
    """A server that accepts no more is given up after the timeout, and nothing was sent."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # The queue of connections that are not accepted fills up; the system then ignores more.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        at = account(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_seconds=0.3)
        error = fails(send, at)
    assert type(error) is ConnectionFailedError
    assert error.billing is Billing.NOT_SENT


def test_a_server_that_says_nothing_times_out(send):
    """The request was sent, so it may have been billed; the message says how long we waited."""
    with Server(lambda connection: to.hang(connection)) as to:  # noqa: PLW0108 (`to` is bound later)
        error = fails(send, account(to.endpoint, timeout_seconds=0.3))
    assert type(error) is AnswerLostError
    assert error.decision is Decision.RETRY
    assert error.billing is Billing.UNKNOWN
    assert "0.3 s" in error.message


def drip(connection: socket.socket, sent: list[bytes]) -> None:
    """Answer a byte at a time, each well within any timeout of one read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while len(sent) < 60:
        connection.sendall(b"x")
        sent.append(b"x")
        if select.select([connection], [], [], 0.05)[0]:
            return


def test_the_timeout_is_for_the_whole_answer(send):
    """An answer that drips in, byte by byte, is given up at the timeout all the same."""
    sent: list[bytes] = []
    with Server(lambda connection: drip(connection, sent)) as to:
        error = fails(send, account(to.endpoint, timeout_seconds=0.4))
    assert len(sent) < 30
    assert type(error) is AnswerLostError
    assert "0.4 s" in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46" * 20,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n{}",
    ],
    ids=[
        "closed",
        "half a body",
        "half a chunk",
        "not gzip",
        "SSH",
        "TLS",
        "no status",
        "endless header",
    ],
)
def test_no_whole_answer(send, data):
    """Half an answer, or garbage that is not HTTP: it may have been billed, and is retried."""
    with Server(says(data)) as to:
        error = fails(send, account(to.endpoint, timeout_seconds=5))
    assert type(error) is AnswerLostError
    assert error.billing is Billing.UNKNOWN


def test_half_a_head(send):
    """A head that ends too early is no answer: retried, and it may have been billed."""
    with Server(says(b"HTTP/1.1 200 OK\r\nContent-Le")) as to:
        at = account(to.endpoint)
        caller = RequestCodec(at)
        with pytest.raises(ImageTagError) as caught:
            # requests takes it for an answer with an empty body, and that is not understood.
            caller.result(Image("a"), send(at, caller.probe()))
    assert caught.value.decision is Decision.RETRY
    assert caught.value.billing is Billing.UNKNOWN


def reset(connection: socket.socket) -> None:
    """Close with a reset in place of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_a_reset_connection(send):
    """A reset after the request was sent is as an answer that never came."""
    with Server(reset) as to:
        error = fails(send, account(to.endpoint))
    assert type(error) is AnswerLostError


@pytest.mark.parametrize("faults", [Faults(drop_rate=1), Faults(drop_after_work_rate=1)])
def test_the_emulator_drops_the_connection(send, emulator, faults, photographs):
    """A dropped connection may have been billed, and the client cannot know."""
    emulator.faults = faults
    at = replace(
        account(emulator.url),
        secret_id=emulator.connection.login,
        secret_key=emulator.connection.password,
    )
    with pytest.raises(AnswerLostError) as caught:
        send(at, RequestCodec(at).request(Payload(content=photographs[0].read_bytes())))
    assert caught.value.billing is Billing.UNKNOWN
    assert emulator.stats.requests == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(send, status):
    """A redirect is an answer: the signature goes to no other host."""
    with Server(says(GOOD)) as other:
        page = (
            f"HTTP/1.1 {status} Moved\r\nLocation: {other.endpoint}/\r\nContent-Length: 0\r\n\r\n"
        )
        with Server(says(page.encode())) as to:
            answer = send(account(to.endpoint), request_to(to.endpoint))
    assert answer.status == status
    assert other.requests == []


def test_netrc_does_not_replace_the_signature(send, tmp_path, monkeypatch):
    """An entry for the host, or for every host, changes nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with Server(says(GOOD)) as to:
        send(account(to.endpoint), request_to(to.endpoint))
    assert headers_of(to.requests[0])["authorization"] == SIGNATURE


def test_cookies_are_not_kept(send):
    """A cookie of one answer does not go with the next request."""
    with Server(says(GOOD)) as to:
        send(account(to.endpoint), request_to(to.endpoint), request_to(to.endpoint))
    assert len(to.requests) == 2
    assert not any("cookie" in headers_of(request) for request in to.requests)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make an authority that no client trusts by itself."""
    return trustme.CA()


@pytest.fixture
def ca_path(authority: trustme.CA, tmp_path: Path) -> str:
    """Write the authority's certificate to a file."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def tls_emulator(authority: trustme.CA) -> Iterator[Emulator]:
    """Run an emulator over https, with a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Emulator(ssl_context=context) as running:
        yield running


def probe(send: Send, at: Account) -> HttpResponse:
    """Send the request that is not billed."""
    return send(at, RequestCodec(at).probe())


def at_emulator(emulator: Emulator, **fields: Any) -> Account:
    """Return the emulator's account."""
    return dataclasses.replace(account_of(emulator.connection), **fields)


def test_an_untrusted_certificate(send, tls_emulator):
    """It is the connection's fault: nothing is sent, and the message names 'verify'."""
    before = tls_emulator.stats.requests
    error = fails(send, at_emulator(tls_emulator))
    assert type(error) is ConfigurationError
    assert "'verify'" in error.message
    assert tls_emulator.stats.requests == before


def test_verify_names_the_authority(send, tls_emulator, ca_path):
    """The connection's CA file makes the certificate trusted."""
    assert probe(send, at_emulator(tls_emulator, verify=ca_path)).status == 200


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_the_environment_names_the_authority(send, tls_emulator, ca_path, variable, monkeypatch):
    """The variables that curl and requests know serve both clients."""
    monkeypatch.setenv(variable, ca_path)
    assert probe(send, at_emulator(tls_emulator)).status == 200


def test_the_connection_goes_before_the_environment(send, tls_emulator, ca_path, monkeypatch):
    """A CA file in the connection counts where the environment names another."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", __file__)
    assert probe(send, at_emulator(tls_emulator, verify=ca_path)).status == 200


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_may_be_switched_off(send, tls_emulator, monkeypatch):
    """With verify false, any certificate is taken, in any environment."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", __file__)
    assert probe(send, at_emulator(tls_emulator, verify=False)).status == 200


@pytest.mark.parametrize("path", ["/no/such/file.pem", __file__], ids=["missing", "no certificate"])
@pytest.mark.parametrize("source", ["connection", "environment"])
def test_an_unusable_ca_file(send, tls_emulator, path, source, monkeypatch):
    """A CA file that is not there, or none, is an error of the configuration."""
    if source == "environment":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
    at = at_emulator(tls_emulator, verify=path if source == "connection" else True)
    assert type(fails(send, at)) is ConfigurationError


def test_tls_to_a_server_without(send):
    """A server that answers the handshake in plain text got nothing of the request."""
    with Server(says(b"HTTP/1.1 400 Bad\r\n\r\n"), read=False) as to:
        error = fails(send, account(to.endpoint.replace("http:", "https:")))
    assert type(error) is ConnectionFailedError
    assert error.billing is Billing.NOT_SENT


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (send_nonblocking, ConnectionFailedError),
        # requests does not tell this from a server that does not answer: the cautious side.
        (send_blocking, AnswerLostError),
    ],
)
def test_a_handshake_that_hangs(client, expected):
    """A timeout before TLS stands means that nothing was sent, where the client can know it."""
    with Server(lambda connection: to.hang(connection), read=False) as to:  # noqa: PLW0108 (`to` is bound later)
        at = account(to.endpoint.replace("http:", "https:"), timeout_seconds=0.3)
        error = fails(client, at)
    assert type(error) is expected


# Proxies


class Proxy(Server):
    """A proxy for CONNECT and for whole URIs; it asks for credentials if it has some."""

    def __init__(self, credentials: str | None = None, refuse: int | None = None) -> None:
        super().__init__(self._forward)
        self._credentials = credentials
        self._refuse = refuse

    def _forward(self, client: socket.socket) -> None:
        head, _, body = self.requests[-1].partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        if self._refuse is not None:
            client.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self._refuse)
            return
        if self._credentials is not None:
            expected = "Basic " + base64.b64encode(self._credentials.encode()).decode()
            if headers_of(head).get("proxy-authorization") != expected:
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    b"Proxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
                )
                return
        host, _, port = target.removeprefix("http://").partition("/")[0].rpartition(":")
        with socket.create_connection((host, int(port)), 5) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.removeprefix("http://").partition("/")[2]
                head = head.replace(target.encode(), path.encode(), 1)
                server.sendall(head + b"\r\n\r\n" + body)
            pump(client, server)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on, both ways, until either side ends."""
    to = {one: other, other: one}
    while True:
        for ready in select.select(list(to), [], [], 5)[0]:
            if not (data := ready.recv(65536)):
                return
            to[ready].sendall(data)


@pytest.fixture(params=["http", "https"])
def endpoint_account(request, tls_emulator, emulator, ca_path) -> Account:
    """Give an emulator's account over http, then over https."""
    if request.param == "http":
        return at_emulator(emulator)
    return at_emulator(tls_emulator, verify=ca_path)


@pytest.mark.parametrize("source", ["connection", "environment", "environment without scheme"])
def test_a_proxy_is_used(send, endpoint_account, source, monkeypatch):
    """The connection's proxy, or the environment's, carries requests over http and https."""
    with Proxy() as proxy:
        if source == "connection":
            endpoint_account = replace(endpoint_account, proxy=proxy.endpoint)
        else:
            text = proxy.endpoint if source == "environment" else f"127.0.0.1:{proxy.port}"
            scheme = endpoint_account.endpoint.partition(":")[0]
            monkeypatch.setenv(f"{scheme}_proxy", text)
        answer = probe(send, endpoint_account)
    assert answer.status == 200
    assert b"-1300" in answer.body
    assert len(proxy.requests) == 1
    assert proxy.requests[0].startswith((b"CONNECT 127.0.0.1", b"POST http://127.0.0.1"))


def test_the_connections_proxy_goes_first(send, endpoint_account, monkeypatch):
    """Neither HTTPS_PROXY nor NO_PROXY counts where the connection names a proxy."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "*")
    with Proxy() as proxy:
        assert probe(send, replace(endpoint_account, proxy=proxy.endpoint)).status == 200
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("names", ["127.0.0.1", "*", "example.org,127.0.0.1"])
def test_no_proxy_is_respected(send, endpoint_account, names, monkeypatch):
    """A host that NO_PROXY names is reached directly."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", names)
    assert probe(send, endpoint_account).status == 200


def test_a_proxy_with_a_password(send, endpoint_account):
    """User and password of the proxy's URL are given to the proxy only."""
    with Proxy("user:5ecre7") as proxy:
        at = replace(endpoint_account, proxy=f"http://user:5ecre7@127.0.0.1:{proxy.port}")
        assert probe(send, at).status == 200


def test_a_proxy_that_refuses_the_password(send, endpoint_account):
    """HTTP 407 stops the run, over http as over https, and the signature is still ours."""
    with Proxy("user:right") as proxy:
        at = replace(endpoint_account, proxy=f"http://user:5ecre7@127.0.0.1:{proxy.port}")
        # Over http the proxy's refusal is an answer, over https there is no tunnel to get one.
        with pytest.raises(AuthenticationError) as caught:
            RequestCodec(at).check_probe(probe(send, at))
    assert (caught.value.code, caught.value.status) == ("407", 407)
    assert "5ecre7" not in repr(caught.value)


def test_a_proxy_that_has_no_way_through(send, tls_emulator, ca_path):
    """A tunnel that the proxy cannot build: nothing was sent, and it is retried."""
    with Proxy(refuse=503) as proxy:
        error = fails(send, at_emulator(tls_emulator, verify=ca_path, proxy=proxy.endpoint))
    assert type(error) is ConnectionFailedError
    assert error.billing is Billing.NOT_SENT


def test_a_proxy_that_is_not_there(send, endpoint_account):
    """No connection to the proxy: nothing was sent."""
    at = replace(endpoint_account, proxy=f"http://user:5ecre7@127.0.0.1:{closed_port()}")
    error = fails(send, at)
    assert type(error) is ConnectionFailedError


def test_connections_leave_nothing_open(emulator):
    """After ``async with``, no connection is left, and requests shared one."""
    at = at_emulator(emulator)

    async def main() -> int:
        async with nonblocking.Connections(at, max_connections=1) as connections:
            for _ in range(3):
                await connections.send(RequestCodec(at).probe())
            connector = connections._session.connector
            assert connector is not None
            kept = sum(len(pool) for pool in connector._conns.values())
        assert connector.closed
        return kept

    assert asyncio.run(main()) == 1


def test_headers_are_prepared_once_where_they_cannot_change():
    """A service of another package may change a dict that it gives again and again."""
    shared, headers = nonblocking.SharedHeaders(), {"X-Number": "1"}
    assert shared.prepared(headers) is headers
    unchanging = MappingProxyType(headers)
    prepared = shared.prepared(unchanging)
    assert dict(prepared) == headers
    assert shared.prepared(unchanging) is prepared
    others = MappingProxyType({"X-Number": "2"})
    assert dict(shared.prepared(others)) == {"X-Number": "2"}
    assert dict(shared.prepared(unchanging)) == headers
