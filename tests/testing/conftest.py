"""A running emulator, a client that signs, and photographs."""

from __future__ import annotations

import base64
import importlib.util
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from PIL import Image
from tc3_requests import TiiaClient

from airflow_imagetag.services.recognition.signature import sign
from airflow_imagetag.testing import Emulator

APP_ID = "1250000001"
SECRET_ID = "AKIDemulator0000000000000000000000"
SECRET_KEY = "emulatorSecretKey000000000000000"


class Client:
    """Posts to an emulator, with a good signature by default."""

    def __init__(self, emulator: Emulator, session: requests.Session) -> None:
        self.emulator = emulator
        self.session = session
        self.v2 = f"{emulator.url}/imagetag/picture_classify"
        self.v1 = f"{emulator.url}/v1/detection/imagetag_detect"
        # All requests have one signature, also in different seconds.
        self._now = int(time.time())

    def signature(self, *, app_id: str = APP_ID, secret_id: str = SECRET_ID, **fields: Any) -> str:
        """Return an Authorization value with the given fields, else a good one."""
        life = {"now": self._now, "expires": self._now + 600}
        secret_key = fields.pop("secret_key", SECRET_KEY)
        return sign(app_id, secret_id, secret_key, **{"nonce": 7, **life, **fields})

    def post(self, url: str = "", **kwargs: Any) -> requests.Response:
        """Post with a signature, to V2 by default."""
        headers = {"Authorization": self.signature()} | kwargs.pop("headers", {})
        return self.session.post(url or self.v2, headers=headers, timeout=60, **kwargs)

    def base64(self, image: bytes, **extra: str) -> requests.Response:
        """Post an image in JSON."""
        text = base64.b64encode(image).decode()
        return self.post(json={"app_id": APP_ID, "image": text, **extra})

    def multipart(self, image: bytes) -> requests.Response:
        """Post an image as a form's file."""
        return self.post(data={"app_id": APP_ID}, files={"image": ("photo", image)})

    def by_url(self, url: str) -> requests.Response:
        """Post an image's URL."""
        return self.post(json={"app_id": APP_ID, "url": url})


@pytest.fixture
def connect() -> Iterator[Callable[[Emulator], Client]]:
    """Return a function that makes clients; their connections close after the test."""
    with requests.Session() as session:
        session.trust_env = False
        yield lambda emulator: Client(emulator, session)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator for one test."""
    with Emulator() as running:
        yield running


@pytest.fixture
def client(emulator: Emulator, connect: Callable[[Emulator], Client]) -> Client:
    """Make a client of the emulator."""
    return connect(emulator)


@pytest.fixture
def connect_tiia() -> Iterator[Callable[[Emulator], TiiaClient]]:
    """Return a function that makes clients of TIIA; their connections close after the test."""
    with requests.Session() as session:
        session.trust_env = False
        yield lambda emulator: TiiaClient(emulator, session)


@pytest.fixture
def tiia(emulator: Emulator, connect_tiia: Callable[[Emulator], TiiaClient]) -> TiiaClient:
    """Make a client of TIIA."""
    return connect_tiia(emulator)


@pytest.fixture(scope="session")
def photographs() -> Path:
    """Return the folder of photographs in scikit-image's wheel, without importing it."""
    specification = importlib.util.find_spec("skimage")
    assert specification is not None
    assert specification.origin is not None
    return Path(specification.origin).parent / "data"


@pytest.fixture(scope="session")
def photograph(photographs: Path) -> bytes:
    """Read one photograph: a rocket at dusk, mostly blue."""
    return (photographs / "rocket.jpg").read_bytes()


@pytest.fixture(scope="session")
def small_images() -> list[bytes]:
    """Draw a hundred small images, all different."""
    images = []
    for number in range(100):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 2 * number, 200)).save(file, "PNG")
        images.append(file.getvalue())
    return images


class QuietFiles(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def serve_folder() -> Callable[[Path], AbstractContextManager[str]]:
    """Return a function that serves a folder over HTTP for a ``with`` block."""

    @contextmanager
    def serve(folder: Path) -> Iterator[str]:
        handler = partial(QuietFiles, directory=str(folder))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    return serve
