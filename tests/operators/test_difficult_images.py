"""Difficult images through the operator: each ends labelled, or failed with the right error.

They are files as users have them, made here. The operator runs in a process of its own, so that
the memory it takes is its alone; the emulator runs in this one, and must bear what it is sent.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import TaskInstance
from forked import Driver
from PIL import Image
from web_servers import Silent, serving

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.testing import Emulator

DRIVER = Path(__file__).parent / "difficult_driver.py"
RECOGNITION = ("picture_classify", "imagetag_detect")
TIIA = ("DetectLabelPro", "DetectLabel")

MAX_MEMORY_BYTES = 500 * 2**20
"""Some 20 MB of files, a 20-megapixel photograph and an animation beside it, and some room."""

BROKEN = {
    "bomb.png": "ImageDecodeError",
    "text.jpg": "ImageDecodeError",
    "large bomb.png": "ImageTooLargeError",
}
FOUND_TOO_LARGE = dict.fromkeys(
    ("photograph.jpg", "sixteen bits.png", "animation.gif", "truncated.jpg"), "ImageTooLargeError"
)
OTHER_FORMATS = {
    "animation.gif": "ImageFormatError",
    "small.webp": "ImageFormatError",
    "text.jpg": "ImageFormatError",
}
EXPECTED = {
    ("recognition", "error"): BROKEN | FOUND_TOO_LARGE,
    ("recognition", "downscale"): BROKEN | {"truncated.jpg": "ImageDecodeError"},
    ("tiia", "error"): BROKEN | FOUND_TOO_LARGE | OTHER_FORMATS,
    ("tiia", "downscale"): BROKEN | {"truncated.jpg": "ImageDecodeError"} | OTHER_FORMATS,
}
SENT_AND_REFUSED = {"recognition": {"bomb.png", "text.jpg"}, "tiia": {"bomb.png"}}


def save(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def bomb() -> bytes:
    """Return a PNG of 400 million pixels in 50 KB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    packer, row = zlib.compressobj(1), bytes(1 + 20_000 // 8)
    data = b"".join([*(packer.compress(row) for _ in range(20_000)), packer.flush()])
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def files(photograph: Image.Image) -> dict[str, bytes]:
    """Return the files by name."""
    grain = np.random.default_rng(3)
    large = np.asarray(photograph.resize((5472, 3648)), dtype=np.int16)
    grained = large + grain.integers(-24, 24, large.shape, dtype=np.int16)
    twenty_megapixels = save(
        Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8)), "JPEG", quality=92
    )
    upright = Image.Exif()
    upright[0x0112] = 6
    deep = grain.integers(0, 65536, (2000, 2000), dtype=np.uint16)
    frames = [
        Image.fromarray(grain.integers(0, 256, (1200, 1200), dtype=np.uint8)) for _ in range(5)
    ]
    return {
        "photograph.jpg": twenty_megapixels,
        "cmyk.jpg": save(photograph.convert("CMYK"), "JPEG"),
        "rotated.jpg": save(photograph.rotate(90, expand=True), "JPEG", exif=upright),
        "sixteen bits.png": save(Image.fromarray(deep), "PNG", compress_level=1),
        "animation.gif": save(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "small.webp": save(photograph, "WEBP"),
        "pixel.png": save(Image.new("RGB", (1, 1), "teal"), "PNG"),
        "truncated.jpg": twenty_megapixels[: len(twenty_megapixels) - 1_000_000],
        "bomb.png": bomb(),
        "large bomb.png": bomb() + bytes(7_000_000),
        "text.jpg": b"This is a text whose file has the wrong name.\n" * 50,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[Path]) -> Path:
    """Write the files once."""
    made: Path = tmp_path_factory.mktemp("difficult")
    with Image.open(photographs[3]) as photograph:
        for name, content in files(photograph.convert("RGB")).items():
            (made / name).write_bytes(content)
    return made


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Run the process that forks the tasks."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("tasks"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    """Run one emulator for all."""
    with Emulator() as running:
        yield running


def connection(service: Emulator, api: str) -> str:
    """Return a connection for an interface, without a quota."""
    fields = json.loads(service.connection_json_for(api))  # type: ignore[arg-type]
    fields["extra"]["requests_per_second"] = 0
    return json.dumps(fields)


@pytest.mark.parametrize("oversize", ["error", "downscale"])
@pytest.mark.parametrize("api", RECOGNITION + TIIA)
def test_each_difficult_image_ends_as_it_should(folder, driver, service, api, oversize):
    """Labelled or failed with its error, sent only if that may help, and in bounded memory."""
    service.reset_stats()
    task = driver.start(
        {"folder": str(folder), "oversize": oversize},
        {
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": connection(service, api),
            "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(folder),
        },
    )
    result = task.summary()
    family = "tiia" if api in TIIA else "recognition"
    expected = EXPECTED[family, oversize]
    everything = {path.name for path in folder.iterdir()}
    assert result["failed"] == expected
    assert set(result["tagged"]) == everything - set(expected)
    assert {name for name, count in result["sent"].items() if count} == SENT_AND_REFUSED[family]
    assert result["summary"]["calls"] == service.stats.requests
    assert result["peak_bytes"] < MAX_MEMORY_BYTES
    warned = Path(f"{task.output}.warnings").read_text()
    assert ("'pixel.png' has 1 x 1 pixels" in warned) == (family == "tiia")


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    """Serve the files over HTTP."""

    class Files(Silent, SimpleHTTPRequestHandler):
        pass

    with serving(partial(Files, directory=folder)) as url:
        yield url


def test_what_the_worker_downloads_is_checked_and_made_smaller(web, service, monkeypatch):
    """As any bytes are; downloads by the service are its own affair."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection(service, "DetectLabelPro"))
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    task_instance = TaskInstance()
    task = ImageTagOperator(
        task_id="label",
        images=[f"{web}/photograph.jpg", f"{web}/small.webp"],
        fetch="worker",
        oversize="{{ 'downscale' }}",
        max_failure_ratio=1,
    )
    task.render_template_fields({})
    labels = task.execute({"ti": task_instance})
    assert set(labels["image_key"]) == {f"{web}/photograph.jpg"}
    assert list(task_instance.xcoms["failures"]["error"]) == ["ImageFormatError"]


def test_an_unknown_oversize_stops_the_task(service, monkeypatch):
    """Before anything is sent."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection(service, "DetectLabelPro"))
    service.reset_stats()
    task = ImageTagOperator(task_id="label", images=[b"any"], oversize="shrink")
    with pytest.raises(ConfigurationError, match="oversize must be 'error' or 'downscale'"):
        task.execute({})
    assert service.stats.requests == 0
