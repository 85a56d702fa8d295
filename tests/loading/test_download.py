"""Downloads on the worker: images, and nothing from inside the worker's own network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_imagetag.errors import (
    ImageError,
    ImageNotAllowedError,
    ImageTooLargeError,
    ImageUnreadableError,
    StorageError,
)
from airflow_imagetag.loading.download import MAX_REDIRECTS, download


class Server(ThreadingHTTPServer):
    """A server on the worker itself, which remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.redirects: dict[str, str] = {}
        self.released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        target = self.server.redirects.get(self.path)
        if target is not None:
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = int(self.path[1:]) if self.path[1:].isdigit() else 200
        content = b"x" * 5000 if self.path == "/large" else b"an image"
        if status in (204, 304):
            content = b""
        self.send_response(status)
        if self.path == "/endless":
            self.end_headers()
            for _ in range(200):
                try:
                    self.wfile.write(b"x" * 1000)
                except OSError:
                    return
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path == "/slow":
            self.server.released.wait(20)
        if self.path == "/broken":
            self.wfile.write(content[:3])
            self.connection.close()
            return
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Run the server."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


def get(url: str, *allowed: str, max_bytes: int = 4000, timeout_seconds: float = 10) -> bytes:
    """Download."""
    return download(
        url, max_bytes=max_bytes, timeout_seconds=timeout_seconds, allowed_hosts=allowed
    )


def test_an_allowed_host(server: Server):
    """A private host that the configuration names is downloaded from."""
    assert get(f"http://127.0.0.1:{server.server_port}/a", "127.0.0.1") == b"an image"
    assert get(f"http://localhost:{server.server_port}/b", "localhost") == b"an image"
    assert get(f"http://LOCALHOST:{server.server_port}/c", "localhost") == b"an image"
    assert server.asked == ["/a", "/b", "/c"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "LOCALHOST",
        "user:password@127.0.0.1",
        "shop.example@127.0.0.1",
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "ⓛocalhost",
        "127.0.0.1.",
    ],
)
def test_a_private_host_in_any_spelling(server: Server, host: str):
    """Nothing is fetched, and the failure is the image's."""
    with pytest.raises(ImageError) as caught:
        get(f"http://{host}:{server.server_port}/secret")
    assert server.asked == []
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost.", "%31%32%37.0.0.1", "127.0.0.1%00.example"])
def test_a_name_that_may_be_known_or_not(server: Server, host: str):
    """Whether the system's look-up knows the name or not, nothing is fetched."""
    with pytest.raises((ImageError, StorageError)):
        get(f"http://{host}:{server.server_port}/secret")
    assert server.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"])
def test_a_private_host_is_named(host: str):
    """The message says which option would allow it."""
    with pytest.raises(ImageNotAllowedError, match="allowed_private_hosts") as caught:
        get(f"http://{host}:1/latest?token=secret")
    assert host in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]]
)
def test_a_name_that_stands_for_a_private_address(
    server: Server, addresses: list[str], monkeypatch: pytest.MonkeyPatch
):
    """A name of the internet may point into the worker's network; one such address is enough."""

    def look_up(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        assert host == "innocent.example"
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(ImageNotAllowedError, match=r"innocent\.example"):
        get(f"http://innocent.example:{server.server_port}/secret")
    assert server.asked == []


def test_a_name_that_stands_for_nothing_may_come_back(monkeypatch: pytest.MonkeyPatch):
    """A failed look-up is the network's fault."""

    def look_up(*args: Any, **kwargs: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(StorageError, match=r"shop\.example"):
        get("http://shop.example/a.jpg")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://2130706433:{port}/secret",
        "http://[::ffff:127.0.0.1]:{port}/secret",
        "//127.0.0.1:{port}/secret",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "ftp://127.0.0.1/secret",
        "gopher://127.0.0.1:{port}/_GET",
        "http://[broken/",
    ],
)
def test_a_redirect_to_what_is_not_allowed(server: Server, target: str):
    """Every step of a redirect is checked."""
    server.redirects["/start"] = target.format(port=server.server_port)
    with pytest.raises(ImageError):
        get(f"http://localhost:{server.server_port}/start", "localhost")
    assert server.asked == ["/start"]


def test_a_redirect_within_what_is_allowed(server: Server):
    """Relative or whole, a few of them."""
    server.redirects |= {
        "/start": "/two",
        "/two": f"http://127.0.0.1:{server.server_port}/end",
    }
    url = f"http://localhost:{server.server_port}/start"
    assert get(url, "localhost", "127.0.0.1") == b"an image"


def test_a_loop_of_redirects_ends(server: Server):
    """After a few steps the image counts as unreadable."""
    server.redirects["/loop"] = "/loop"
    with pytest.raises(ImageUnreadableError, match="redirects more than"):
        get(f"http://localhost:{server.server_port}/loop", "localhost")
    assert len(server.asked) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("path", ["large", "endless"])
def test_more_than_the_limit_is_not_read(server: Server, path: str):
    """Whether the server says how much there is, or not."""
    with pytest.raises(ImageTooLargeError, match="4000 bytes"):
        get(f"http://localhost:{server.server_port}/{path}", "localhost")


def test_as_much_as_the_limit_is_read(server: Server):
    """The limit itself is allowed."""
    url = f"http://localhost:{server.server_port}/large"
    assert len(get(url, "localhost", max_bytes=5000)) == 5000


def test_a_slow_server(server: Server):
    """It is given up after the time that all of a download may take."""
    started = time.monotonic()
    with pytest.raises(StorageError, match="TimeoutError"):
        get(f"http://localhost:{server.server_port}/slow", "localhost", timeout_seconds=0.5)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 304])
def test_an_image_that_is_not_handed_out(server: Server, status: int):
    """Another try would meet the same."""
    with pytest.raises(ImageUnreadableError, match=f"HTTP {status}") as caught:
        get(f"http://localhost:{server.server_port}/{status}", "localhost")
    assert caught.value.status == status


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_fails(server: Server, status: int):
    """Another try may succeed."""
    with pytest.raises(StorageError, match=f"HTTP {status}"):
        get(f"http://localhost:{server.server_port}/{status}", "localhost")


def test_a_connection_that_breaks_off(server: Server):
    """Half of an image is none."""
    with pytest.raises(StorageError):
        get(f"http://localhost:{server.server_port}/broken", "localhost")


def test_nobody_listens():
    """A refused connection may be taken tomorrow."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(StorageError):
            get(f"http://127.0.0.1:{free.getsockname()[1]}/a", "127.0.0.1")


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///a", "http://[bad/", "http://host:99999/", "http://a b/", "http://\x00/"],
)
def test_what_is_no_url_is_the_images_fault(url: str):
    """A text that a table holds in place of a URL fails one image and not the run."""
    with pytest.raises((ImageError, StorageError)):
        get(url)


def test_no_environment_is_taken(server: Server, monkeypatch: pytest.MonkeyPatch):
    """A proxy of the worker would make the connection in its place, unchecked."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(ImageNotAllowedError):
        get("http://10.0.0.1/secret")
    assert server.asked == []
