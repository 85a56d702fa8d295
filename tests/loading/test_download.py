"""Downloads in the worker: images, and nothing from the worker's own network."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_imagetag.errors import (
    ImageEmptyError,
    ImageError,
    ImageNotAllowedError,
    ImageTagError,
    ImageTooLargeError,
    ImageUnreadableError,
    StorageError,
)
from airflow_imagetag.loading.download import MAX_DOWNLOADS, MAX_REDIRECTS, Downloader

HALF = bytes(2_000_000)
"""The half of an image that ``/half`` and ``/stalled`` send."""


class Server(ThreadingHTTPServer):
    """A server on the worker itself, which records its requests and connections."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.cookies: dict[str, str | None] = {}
        self.redirects: dict[str, str] = {}
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.connections = self.waiting = self.most_waiting = 0

    def url(self, path: str, host: str = "localhost") -> str:
        """Return the URL of a path."""
        return f"http://{host}:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    server: Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        with self.server.lock:
            self.server.connections += 1
        super().setup()

    def wait(self) -> None:
        """Hold the answer back until the test releases it."""
        with self.server.lock:
            self.server.waiting += 1
            self.server.most_waiting = max(self.server.most_waiting, self.server.waiting)
        self.server.released.wait(20)
        with self.server.lock:
            self.server.waiting -= 1

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.cookies[self.path] = self.headers.get("Cookie")
        if target := self.server.redirects.get(self.path):
            self.redirect(target)
        elif self.path in ("/half", "/stalled"):
            self.send_half()
        else:
            self.respond()

    def redirect(self, target: str) -> None:
        """Lead to another URL, some time later where the path says so, and set a cookie."""
        if self.path.startswith("/slow"):
            self.server.released.wait(0.4)
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.send_header("Set-Cookie", "visited=yes; Path=/")
        self.end_headers()

    def send_half(self) -> None:
        """Send half of the bytes that were announced."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(HALF)))
        self.end_headers()
        self.wfile.write(HALF)
        if self.path == "/stalled":
            self.wait()

    def respond(self) -> None:
        """Send the image or the status of the path."""
        status = int(self.path[1:]) if self.path[1:].isdigit() else 200
        content = {"/large": b"x" * 5000, "/empty": b""}.get(self.path, b"an image")
        if status in (204, 304):
            content = b""
        self.send_response(status)
        if self.path == "/endless":
            self.close_connection = True
            self.end_headers()
            for _ in range(200):
                try:
                    self.wfile.write(b"x" * 1000)
                except OSError:
                    return
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path.startswith("/slow"):
            self.wait()
        if self.path == "/broken":
            self.close_connection = True
            self.wfile.write(content[:3])
            return
        self.server.answered.append(self.path)
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
    """Download one image."""

    async def main() -> bytes:
        async with Downloader(
            max_bytes=max_bytes, timeout_seconds=timeout_seconds, allowed_hosts=allowed
        ) as downloader:
            return await downloader.download(url)

    return asyncio.run(main())


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
    """Nothing is fetched, whether or not the system can look the name up."""
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
    """A name of the internet may point into the worker's network; one private address is enough."""

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


def test_a_failed_look_up_is_a_storage_error(monkeypatch: pytest.MonkeyPatch):
    """The network is at fault, and another attempt may succeed."""

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
def test_a_redirect_to_a_forbidden_target(server: Server, target: str):
    """Every redirect is checked."""
    server.redirects["/start"] = target.format(port=server.server_port)
    with pytest.raises(ImageError):
        get(f"http://localhost:{server.server_port}/start", "localhost")
    assert server.asked == ["/start"]


def test_a_redirect_between_allowed_hosts(server: Server):
    """Relative and absolute redirects are followed, and several in a row."""
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
    """The limit holds with and without a Content-Length."""
    with pytest.raises(ImageTooLargeError, match="4000 bytes"):
        get(f"http://localhost:{server.server_port}/{path}", "localhost")


def test_an_image_of_the_maximum_size_is_read(server: Server):
    """The limit is inclusive."""
    url = f"http://localhost:{server.server_port}/large"
    assert len(get(url, "localhost", max_bytes=5000)) == 5000


def test_a_slow_server(server: Server):
    """The download ends at the timeout, without an answer."""
    with pytest.raises(StorageError, match="TimeoutError"):
        get(server.url("/slow"), "localhost", timeout_seconds=0.5)
    assert (server.asked, server.answered) == (["/slow"], [])


def test_the_timeout_covers_all_redirects(server: Server):
    """Several redirects that are each fast enough are together too slow."""
    server.redirects |= {f"/slow{number}": f"/slow{number + 1}" for number in range(4)}
    with pytest.raises(StorageError, match="TimeoutError"):
        get(server.url("/slow0"), "localhost", timeout_seconds=1)
    assert "/slow1" in server.asked
    assert server.answered == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 304])
def test_an_image_that_the_server_does_not_serve(server: Server, status: int):
    """Another attempt would fail alike."""
    with pytest.raises(ImageUnreadableError, match=f"HTTP {status}") as caught:
        get(f"http://localhost:{server.server_port}/{status}", "localhost")
    assert caught.value.status == status


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_fails(server: Server, status: int):
    """Another attempt may succeed."""
    with pytest.raises(StorageError, match=f"HTTP {status}"):
        get(f"http://localhost:{server.server_port}/{status}", "localhost")


def test_an_image_of_zero_bytes(server: Server):
    """It has an error of its own, which names the URL without its secrets."""
    server.redirects["/empty?id=1&sig=5ecre7"] = "/empty"
    with pytest.raises(ImageEmptyError, match="zero bytes"):
        get(server.url("/empty?id=1&sig=5ecre7"), "localhost")


def test_a_connection_that_breaks_off(server: Server):
    """Half an image is an error."""
    with pytest.raises(StorageError):
        get(f"http://localhost:{server.server_port}/broken", "localhost")


def test_a_refused_connection():
    """Another attempt may succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(StorageError):
            get(f"http://127.0.0.1:{free.getsockname()[1]}/a", "127.0.0.1")


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///a", "http://[bad/", "http://host:99999/", "http://a b/", "http://\x00/"],
)
def test_a_text_that_is_not_a_url_is_the_images_fault(url: str):
    """Such a text in a table fails one image and not the run."""
    with pytest.raises((ImageError, StorageError)):
        get(url)


def test_the_environments_proxy_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch):
    """A proxy would make the connection for the worker, unchecked."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(ImageNotAllowedError):
        get("http://10.0.0.1/secret")
    assert server.asked == []


# -- many downloads of one run


def download_all(
    urls: list[str], *allowed: str, at_once: bool = False
) -> list[bytes | ImageTagError]:
    """Download images with one downloader; an error takes the place of its image."""

    async def main() -> list[bytes | ImageTagError]:
        async with Downloader(
            max_bytes=4 * len(HALF), timeout_seconds=10, allowed_hosts=allowed
        ) as downloader:

            async def one(url: str) -> bytes | ImageTagError:
                try:
                    return await downloader.download(url)
                except ImageTagError as error:
                    return error

            if at_once:
                return list(await asyncio.gather(*map(one, urls)))
            return [await one(url) for url in urls]

    return asyncio.run(main())


def test_downloads_share_connections(server: Server):
    """One connection serves many images of a server, redirects included."""
    server.redirects["/start"] = "/end"
    paths = ["/a", "/b", "/start", "/empty", "/c"]
    found = download_all([server.url(path) for path in paths], "localhost")
    assert [item for item in found if isinstance(item, bytes)] == [b"an image"] * 4
    assert len(server.asked) == len(paths) + 1
    assert server.connections == 1


def test_nothing_is_opened_before_the_first_download():
    """A run whose images need no download costs no session; none is left to close."""

    async def main() -> None:
        async with Downloader(max_bytes=1, timeout_seconds=1) as downloader:
            assert downloader._session is None

    asyncio.run(main())


def test_the_number_of_downloads_at_the_same_time_is_bounded(server: Server):
    """Further images wait, and the waiting time does not count as time of the download."""
    count = 2 * MAX_DOWNLOADS
    releasing = threading.Timer(0.5, server.released.set)
    releasing.start()
    found = download_all(
        [server.url(f"/slow{number}") for number in range(count)], "localhost", at_once=True
    )
    releasing.join()
    assert found == [b"an image"] * count
    assert server.most_waiting == MAX_DOWNLOADS


def test_an_open_connection_is_no_way_round_the_check(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    """A name that is not allowed cannot use the connection of an allowed name of its address."""
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [address])
    good, evil = server.url("/a", "good.example"), server.url("/secret", "evil.example")
    urls = [good, evil, server.url("/secret", "127.0.0.1"), good, evil]
    found = download_all(urls, "good.example")
    assert [type(item) for item in found] == [
        bytes,
        ImageNotAllowedError,
        ImageNotAllowedError,
        bytes,
        ImageNotAllowedError,
    ]
    assert server.asked == ["/a", "/a"]


def test_a_cookie_belongs_to_the_redirects_of_one_image(server: Server):
    """The target of a redirect gets the cookie; the next image does not."""
    server.redirects["/start"] = "/end"
    download_all([server.url("/start"), server.url("/next")], "localhost")
    assert server.cookies == {"/start": None, "/end": "visited=yes", "/next": None}


@pytest.mark.parametrize(
    ("path", "max_bytes", "error"),
    [
        ("/half", 4 * len(HALF), StorageError),
        ("/half", len(HALF) // 2, ImageTooLargeError),
        ("/stalled", 4 * len(HALF), StorageError),
    ],
)
def test_the_bytes_of_failed_downloads_are_freed(
    server: Server, path: str, max_bytes: int, error: type[ImageTagError]
):
    """An error is no cycle that keeps the bytes until the next garbage collection."""

    async def main() -> int:
        async with Downloader(
            max_bytes=max_bytes, timeout_seconds=0.5, allowed_hosts=["localhost"]
        ) as downloader:
            used = []
            for _ in range(6):
                try:
                    await downloader.download(server.url(path))
                except error:
                    used.append(tracemalloc.get_traced_memory()[0])
            # The first may leave its error in the event loop, until the next takes the place.
            return used[5] - used[0]

    gc.disable()
    tracemalloc.start()
    try:
        assert asyncio.run(main()) < len(HALF)
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize(
    "target",
    ["/a?cred=AKID%2F2026&sig=x+y==", "/%28%e5(", "/a/../b//c", "/a?", "/a?x=%20%"],
)
@pytest.mark.parametrize("is_redirected", [False, True])
def test_a_target_is_sent_as_it_is(server: Server, target: str, is_redirected: bool):
    """A signature of a URL is over its text, also where a redirect names it."""
    if is_redirected:
        server.redirects["/start"] = target
    get(server.url("/start" if is_redirected else target), "localhost")
    assert server.asked[-1] == target


def test_what_no_request_line_holds_is_encoded(server: Server):
    """Spaces and characters outside ASCII, and nothing else; a control character is refused."""
    get(server.url("/a b%2F?ü"), "localhost")
    assert server.asked == ["/a%20b%2F?%C3%BC"]
    with pytest.raises(ImageError):
        get(server.url("/a\r\nX: b"), "localhost")
