"""The labeller of one account: its requests, and the threads of its work."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import json
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image as Pictures
from web_servers import Handler, serving

from airflow_imagetag.backends.accounts import account_of
from airflow_imagetag.errors import (
    ConfigurationError,
    ImageDecodeError,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.labellers.base import Prepared
from airflow_imagetag.labellers.http import HttpLabeller
from airflow_imagetag.labellers.loading import FIRST_IMAGE_BYTES, MAX_LOADING
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.download import Downloader
from airflow_imagetag.loading.preflight import ImagePreflight, Oversize
from airflow_imagetag.models import Image
from airflow_imagetag.services.messages import Payload, Request
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.testing import Emulator
from airflow_imagetag.testing._api import ApiName

LOOP = "MainThread"
LARGE = b"x" * 300_000
"""Bytes that are hashed in a thread, as SHA-256 takes long."""

T = TypeVar("T")


class Loader(ContentLoader):
    """A loader that notes the threads that it runs in, and may be held up.

    :param hold: holds up all images without bytes.
    """

    def __init__(self, *args: Any, hold: threading.Event | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hold = hold
        self.threads: list[str] = []
        self.loaded: list[str] = []

    def load(self, image: Image) -> Payload:
        self.threads.append(threading.current_thread().name)
        if self._hold is not None and image.content is None:
            self._hold.wait(20)
        self.loaded.append(image.key)
        return super().load(image)


class Codec(RequestCodec):
    """A codec that notes the threads in which requests are built."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.threads: list[str] = []

    def request(self, payload: Payload) -> Request:
        self.threads.append(threading.current_thread().name)
        return super().request(payload)


class Preflight(ImagePreflight):
    """A preflight that notes the threads in which images are checked."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.threads: list[str] = []

    def fit(self, image: Image, payload: Payload) -> Payload:
        self.threads.append(threading.current_thread().name)
        return super().fit(image, payload)


class Parts:
    """A labeller for the emulator, with its parts.

    :param api: the interface.
    :param loader: loads images; None for one without any folder.
    :param extra: further fields of the connection's extra.
    """

    def __init__(
        self,
        emulator: Emulator,
        loader: Loader | None = None,
        *,
        api: ApiName = "picture_classify",
        oversize: Oversize = Oversize.ERROR,
        max_connections: int = 4,
        **extra: Any,
    ) -> None:
        connection = emulator.connection_for(api)
        connection.extra = json.dumps({**connection.extra_dejson, **extra})
        account = account_of(connection)
        self.loader = Loader() if loader is None else loader
        self.codec = Codec(account)
        self.preflight = Preflight(api, self.codec.limits, oversize)
        self.labeller = HttpLabeller(
            account, self.codec, self.loader, self.preflight, max_connections=max_connections
        )


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator."""
    with Emulator() as running:
        yield running


def run(parts: Parts, scene: Callable[[HttpLabeller], Awaitable[T]]) -> T:
    """Play a scene with an open labeller."""

    async def main() -> T:
        async with asyncio.timeout(20), parts.labeller as labeller:
            return await scene(labeller)

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():  # noqa: ASYNC110 (threads change it)
        await asyncio.sleep(0.001)


def prepare(parts: Parts, image: Image) -> Prepared:
    """Prepare one image."""
    return run(parts, lambda labeller: labeller.prepare(image))


def fit(parts: Parts, image: Image) -> Prepared:
    """Prepare and check one image."""

    async def scene(labeller: HttpLabeller) -> Prepared:
        return await labeller.fit(await labeller.prepare(image))

    return run(parts, scene)


def picture(side: int, image_format: str) -> bytes:
    """Return a file that no format makes small."""
    file = io.BytesIO()
    Pictures.effect_noise((side, side), 90).convert("RGB").save(file, image_format)
    return file.getvalue()


# -- prepare


@pytest.mark.parametrize(
    "image", [Image("a", "https://host/a.jpg"), Image("a", content=b"few"), Image("a", "/b", b"c")]
)
def test_a_url_and_a_few_bytes_are_prepared_in_the_event_loop(emulator, image):
    """No thread is started for them."""
    parts = Parts(emulator)
    prepared = prepare(parts, image)
    assert prepared.image is image
    assert prepared.payload == ContentLoader().load(image)
    assert parts.loader.threads == [LOOP]


def test_many_bytes_are_hashed_in_a_thread(emulator):
    """The event loop goes on meanwhile."""
    parts = Parts(emulator)
    prepared = prepare(parts, Image("a", content=LARGE))
    assert prepared.payload.digest == hashlib.sha256(LARGE).hexdigest()
    assert parts.loader.threads == ["imagetag-load"]


def test_a_file_is_read_in_a_thread(emulator, tmp_path):
    """Its bytes are the payload, and the image stays as the source gave it."""
    (tmp_path / "a.jpg").write_bytes(b"a photo")
    parts = Parts(emulator, Loader([str(tmp_path)]))
    image = Image("a", str(tmp_path / "a.jpg"))
    prepared = prepare(parts, image)
    assert prepared.image is image
    assert prepared.payload.content == b"a photo"
    assert parts.loader.threads == ["imagetag-load"]


def test_the_expected_size_of_an_image_is_that_of_the_images_before(emulator, tmp_path):
    """Only bytes that the worker loads count: not a URL, not bytes that are in memory."""
    file = Image("a", str(tmp_path / "a.jpg"))
    Path(file.uri or "").write_bytes(LARGE)
    parts = Parts(emulator, Loader([str(tmp_path)]))
    labeller = parts.labeller
    assert labeller.expected_bytes(file) == FIRST_IMAGE_BYTES

    async def load(labeller: HttpLabeller) -> None:
        for _ in range(100):
            await labeller.prepare(file)

    run(parts, load)
    expected = labeller.expected_bytes(Image("s", "s3://bucket/a.jpg"))
    assert len(LARGE) <= expected == labeller.expected_bytes(file) < 1.1 * len(LARGE) + 2000
    assert labeller.expected_bytes(Image("u", "https://h/a.jpg")) == 0
    assert labeller.expected_bytes(Image("c", content=LARGE)) == 0


def test_the_expected_size_rises_at_once_and_falls_slowly(emulator, tmp_path):
    """Small images are loaded first, and say little of the others: memory must hold those."""
    sizes = (10_000, 8_000_000, 10_000)
    parts = Parts(emulator, Loader([str(tmp_path)]))
    images = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(bytes([number]) * size)
        images.append(Image(str(number), str(path)))
    expected = []

    async def load(labeller: HttpLabeller) -> None:
        for image in images * 20:
            await labeller.prepare(image)
            expected.append(labeller.expected_bytes(image))

    run(parts, load)
    assert expected[0] > 0.8 * FIRST_IMAGE_BYTES
    assert min(expected) > 0.7 * max(sizes)
    assert expected[-2] == max(sizes)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (Image("a"), InvalidImageError),
        (Image("a", "/etc/passwd"), ImageNotAllowedError),
        (Image("a", "{folder}/missing.jpg"), ImageUnreadableError),
        (Image("a", "{folder}/empty.jpg"), ImageEmptyError),
    ],
)
def test_an_error_of_the_loader_is_raised(emulator, tmp_path, image, error):
    """It is the same, in the event loop or from a thread."""
    (tmp_path / "empty.jpg").touch()
    if image.uri is not None:
        image = Image("a", image.uri.format(folder=tmp_path))
    with pytest.raises(error):
        prepare(Parts(emulator, Loader([str(tmp_path)])), image)


class Server:
    """A web server with one image.

    :param content: its bytes.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.clients: set[Any] = set()

    def __enter__(self) -> Server:
        server = self

        class Answering(Handler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                server.clients.add(self.client_address)
                self.respond(server.content)

        self._serving = serving(Answering)
        self.url = self._serving.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._serving.__exit__(*exc_info)


def downloading(*allowed_hosts: str) -> Loader:
    """Return a loader that downloads."""
    return Loader(
        downloader=Downloader(max_bytes=10**6, timeout_seconds=10, allowed_hosts=allowed_hosts)
    )


@pytest.mark.parametrize(("content", "thread"), [(b"few", LOOP), (LARGE, "imagetag-load")])
def test_the_worker_downloads_a_url_if_asked(emulator, content, thread):
    """The payload has the bytes and their digest; many bytes are hashed in a thread."""
    parts = Parts(emulator, downloading("127.0.0.1"))
    with Server(content) as server:
        image = Image("a", f"{server.url}/a.jpg")
        prepared = prepare(parts, image)
    assert prepared.image is image
    assert prepared.payload == Payload(content=content, digest=hashlib.sha256(content).hexdigest())
    assert parts.loader.threads == [thread]


def test_downloads_of_a_labeller_share_a_connection(emulator):
    """One session serves all images of a run; it is closed with the labeller."""
    parts = Parts(emulator, downloading("127.0.0.1"))

    async def scene(labeller: HttpLabeller) -> None:
        for number in range(5):
            await labeller.prepare(Image(str(number), f"{server.url}/{number}"))

    with Server(b"few") as server:
        run(parts, scene)
        assert len(server.clients) == 1
    assert parts.loader.downloader is not None
    assert parts.loader.downloader._session is None


def test_a_download_keeps_the_rules_of_trust(emulator):
    """A private address is refused, and a server that is down may be asked again."""
    with Server(b"few") as server:
        image = Image("a", f"{server.url}/a.jpg")
        with pytest.raises(ImageNotAllowedError):
            prepare(Parts(emulator, downloading()), image)
    with pytest.raises(StorageError):
        prepare(Parts(emulator, downloading("127.0.0.1")), image)


# -- prepare_ahead


@pytest.mark.parametrize(("content", "thread"), [(LARGE, "imagetag-load"), (b"few", LOOP)])
def test_bytes_are_hashed_ahead(emulator, content, thread):
    """The thread that reads the source prepares them; without it, many bytes take another one."""
    parts = Parts(emulator)
    image = Image("a", content=content)
    prepared = parts.labeller.prepare_ahead(image)
    assert prepared == prepare(parts, image)
    assert parts.loader.threads == [LOOP, thread]


@pytest.mark.parametrize("image", [Image("a", "https://host/a"), Image("a", "/a.jpg")])
def test_nothing_else_is_prepared_ahead(emulator, image):
    """The reading thread does not wait for a storage."""
    parts = Parts(emulator)
    assert parts.labeller.prepare_ahead(image) is None
    assert parts.loader.threads == []


def test_an_error_ahead_is_left_to_prepare(emulator):
    """The engine meets the error where it handles errors."""

    class Failing(Loader):
        def load(self, image: Image) -> Payload:
            raise ImageTooLargeError("too large")

    parts = Parts(emulator, Failing())
    image = Image("a", content=LARGE)
    assert parts.labeller.prepare_ahead(image) is None
    with pytest.raises(ImageTooLargeError):
        prepare(parts, image)


# -- fit


def test_an_image_within_the_limits_is_checked_in_the_event_loop(emulator):
    """The same object is returned."""
    parts = Parts(emulator, oversize=Oversize.DOWNSCALE)
    prepared = Prepared(Image("a"), Payload(content=b"few", digest="d"))
    assert run(parts, lambda labeller: labeller.fit(prepared)) is prepared
    assert parts.preflight.threads == [LOOP]


def test_an_image_over_the_limit_is_decoded_in_a_thread(emulator):
    """A smaller JPEG takes the place of its bytes; the digest and the image stay."""
    parts = Parts(emulator, oversize=Oversize.DOWNSCALE, api="DetectLabelPro")
    content = picture(1200, "PNG")
    image = Image("a", content=content)
    fitted = fit(parts, image)
    assert fitted.image is image
    assert fitted.payload.content is not None
    assert len(fitted.payload.content) <= parts.codec.limits.max_content_bytes < len(content)
    assert fitted.payload.digest == hashlib.sha256(content).hexdigest()
    assert parts.preflight.threads == ["imagetag-decode"]


def test_an_image_over_the_limit_is_refused_in_the_event_loop(emulator):
    """Without downscaling, nothing is decoded."""
    parts = Parts(emulator)
    with pytest.raises(ImageTooLargeError):
        fit(parts, Image("a", content=bytes(7_000_000)))
    assert parts.preflight.threads == [LOOP]


# -- call


@pytest.mark.parametrize("api", ["picture_classify", "DetectLabelPro"])
def test_labels_of_one_image(emulator, photographs, api):
    """The result has the labels, the key, the version and the digest of the image."""
    content = photographs[0].read_bytes()
    image = Image("k", "https://host/a.jpg?sig=5ecre7", content, "v1")

    async def scene(labeller: HttpLabeller) -> Any:
        return await labeller.call(await labeller.fit(await labeller.prepare(image)))

    result = run(Parts(emulator, api=api), scene)
    assert result.labels
    assert (result.image_key, result.version) == ("k", "v1")
    assert result.image_uri == "https://host/a.jpg"
    assert result.content_sha256 == hashlib.sha256(content).hexdigest()
    assert emulator.stats.billed == 1


@pytest.mark.parametrize(("size", "thread"), [(1000, LOOP), (1_000_000, "imagetag-build")])
def test_a_large_request_is_built_in_a_thread(emulator, size, thread):
    """The digest of a large body, for its signature, takes long."""
    parts = Parts(emulator, api="DetectLabelPro")
    prepared = Prepared(Image("a"), Payload(content=bytes(size)))
    with pytest.raises(ImageDecodeError):
        run(parts, lambda labeller: labeller.call(prepared))
    assert parts.codec.threads == [thread]


def test_the_calls_of_an_image_are_those_that_the_vendor_bills(emulator):
    """Each scene is a call."""
    assert Parts(emulator).labeller.calls_per_image == 1
    scenes = Parts(emulator, api="DetectLabel", scenes="WEB,CAMERA,NEWS")
    assert scenes.labeller.calls_per_image == 3


# -- threads and the end


@pytest.mark.parametrize(("max_connections", "expected"), [(3, 3), (200, MAX_LOADING)])
def test_the_number_of_loading_threads_is_bounded(emulator, tmp_path, max_connections, expected):
    """As many images are read at the same time as may be in flight, up to a maximum."""
    hold = threading.Event()
    parts = Parts(emulator, Loader([str(tmp_path)], hold=hold), max_connections=max_connections)
    (tmp_path / "a.jpg").write_bytes(b"a")

    async def scene(labeller: HttpLabeller) -> None:
        image = Image("a", str(tmp_path / "a.jpg"))
        tasks = [asyncio.create_task(labeller.prepare(image)) for _ in range(expected + 10)]
        await until(lambda: len(parts.loader.threads) == expected)
        await asyncio.sleep(0.01)
        assert len(parts.loader.threads) == expected
        hold.set()
        await asyncio.gather(*tasks)

    run(parts, scene)


def test_a_storage_that_hangs_holds_up_no_other_image(emulator):
    """URLs, bytes, decoding and large requests go on while all loading threads hang."""
    hold = threading.Event()
    parts = Parts(
        emulator,
        Loader(["/"], hold=hold),
        api="DetectLabelPro",
        oversize=Oversize.DOWNSCALE,
        max_connections=2,
    )
    large = picture(1200, "PNG")

    async def scene(labeller: HttpLabeller) -> None:
        hanging = [asyncio.create_task(labeller.prepare(Image("slow", "/a.jpg"))) for _ in range(5)]
        await until(lambda: len(parts.loader.threads) == 2)
        prepared = Prepared(Image("a"), Payload(content=large, digest="d"))
        assert (await labeller.call(await labeller.fit(prepared))).labels
        sent_as_it_is = Payload(content=picture(600, "PNG"), digest="e")
        assert (await labeller.call(Prepared(Image("b"), sent_as_it_is))).labels
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()

    try:
        run(parts, scene)
    finally:
        hold.set()
    assert "imagetag-build" in parts.codec.threads


def test_an_image_that_waits_for_a_thread_can_be_cancelled(emulator, tmp_path):
    """It is never read."""
    hold = threading.Event()
    for name in ("first", "cancelled", "last"):
        (tmp_path / name).write_bytes(b"a")
    parts = Parts(emulator, Loader([str(tmp_path)], hold=hold), max_connections=1)

    async def scene(labeller: HttpLabeller) -> None:
        first, cancelled, last = [
            asyncio.create_task(labeller.prepare(Image(name, str(tmp_path / name))))
            for name in ("first", "cancelled", "last")
        ]
        await until(lambda: bool(parts.loader.threads))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        hold.set()
        await asyncio.gather(first, last)

    run(parts, scene)
    assert parts.loader.loaded == ["first", "last"]


def test_the_end_does_not_wait_for_threads_that_hang(emulator):
    """Images that wait for a thread are given up; the thread itself is left behind."""
    hold = threading.Event()
    parts = Parts(emulator, Loader(["/"], hold=hold), max_connections=1)

    async def main() -> list[asyncio.Task[Prepared]]:
        async with parts.labeller as labeller:
            tasks = [
                asyncio.create_task(labeller.prepare(Image(str(number), "/a.jpg")))
                for number in range(3)
            ]
            await until(lambda: bool(parts.loader.threads))
        await asyncio.wait(tasks[1:], timeout=10)
        return tasks

    try:
        tasks = asyncio.run(main())
        assert [task.cancelled() for task in tasks] == [True, True, True]
        assert parts.loader.loaded == []
    finally:
        hold.set()


def test_a_labeller_that_cannot_be_opened(emulator, tmp_path):
    """The error of the connection is raised, and nothing stays open."""
    (tmp_path / "ca.pem").write_text("no certificate")
    parts = Parts(emulator, verify=str(tmp_path / "ca.pem"), proxy="https://proxy.invalid")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run(parts, lambda labeller: labeller.prepare(Image("a", "https://host/a")))


# -- memory


class TracedImage(Image):
    """An image that can be referred to weakly: its bytes live as long as it does."""


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (lambda: picture(1500, "TIFF"), ImageDecodeError),
        (lambda: picture(1500, "BMP")[:-100_000], ImageDecodeError),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(7_000_000), ImageDecodeError),
    ],
    ids=["TIFF", "cut off", "no picture"],
)
def test_the_bytes_of_an_image_that_cannot_be_downscaled_are_freed(emulator, content, error):
    """The error is no cycle that keeps them until the next garbage collection."""
    parts = Parts(emulator, oversize=Oversize.DOWNSCALE)

    async def scene(labeller: HttpLabeller) -> weakref.ref[TracedImage]:
        image = TracedImage("a", content=content())
        alive = weakref.ref(image)
        prepared = await labeller.prepare(image)
        del image
        failed = False
        try:
            await labeller.fit(prepared)
        except error:
            failed = True
        assert failed
        del prepared
        await asyncio.sleep(0.05)
        return alive

    gc.disable()
    try:
        assert run(parts, scene)() is None
    finally:
        gc.enable()


def test_the_bytes_of_an_image_that_is_not_loaded_are_freed(emulator, tmp_path: Path):
    """An error of the loading thread is no cycle, either."""

    class Failing(Loader):
        def load(self, image: Image) -> Payload:
            raise StorageError("out of reach")

    parts = Parts(emulator, Failing())

    async def scene(labeller: HttpLabeller) -> weakref.ref[TracedImage]:
        image = TracedImage("a", content=LARGE)
        alive = weakref.ref(image)
        failed = False
        try:
            await labeller.prepare(image)
        except StorageError:
            failed = True
        assert failed
        del image
        await asyncio.sleep(0.05)
        return alive

    gc.disable()
    try:
        assert run(parts, scene)() is None
    finally:
        gc.enable()
