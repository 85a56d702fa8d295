"""JPEGs that cost far too much to decode, and ordinary ones that look like them."""

from __future__ import annotations

import io
import time

import pytest
from PIL import Image

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.downscaling import downscale
from airflow_imagetag.loading.jpeg_guard import MAX_SCANS, check_jpeg

END = b"\xff\xd9"


def jpeg(side: int = 200, **options: object) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(more: int, fill: bytes = b"") -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    content = jpeg(progressive=True).removesuffix(END)
    last = fill + content[content.rindex(b"\xff\xda") :]
    return content + last * more + END


def refused(content: bytes, message: str) -> float:
    """Check that a picture is refused; return the seconds of CPU time that this took."""
    began = time.thread_time()
    with pytest.raises(ImageDecodeError, match=message):
        downscale(content, max_bytes=2_000)
    return time.thread_time() - began


@pytest.mark.parametrize(
    "fill",
    [
        b"",
        b"\xff\xff\xff",
        b"\xff\xd0\xff\xd1",
        b"\xff\x02\xff\xff",
        b"\xff\xfe\x00\x04" + END,
    ],
    ids=["none", "fill bytes", "restarts", "reserved marker", "end within a comment"],
)
def test_a_jpeg_of_very_many_scans_is_refused(fill):
    """Each scan makes libjpeg go over the whole picture, and has only a few bytes."""
    assert refused(with_scans(3_000, fill), "more than 100 scans") < 1


def test_a_jpeg_of_very_many_tables_is_refused():
    """The search for a scan does not go through millions of empty segments."""
    many = b"\xff\xe1\0\2" * 1_000_000
    content = with_scans(0).removesuffix(END) + many + b"\xff\xda" * (MAX_SCANS + 1) + END
    assert refused(content, "scans") < 1


def test_a_jpeg_of_many_scans_is_made_smaller():
    """Some tools write a few dozen scans."""
    assert downscale(with_scans(MAX_SCANS // 2), max_bytes=2_000)


@pytest.mark.parametrize(
    "content",
    [
        lambda: jpeg() + b"\xff\xda\0\2" * 5_000,
        lambda: jpeg(exif=b"Exif\0\0" + b"\xff\xda\0\2" * 5_000),
    ],
    ids=["film", "camera data"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_scans_outside_the_picture_are_not_counted(content):
    """Phones append a film to a photograph, which may have any bytes."""
    assert downscale(content(), max_bytes=2_000)


@pytest.mark.parametrize(
    "fill",
    [b"\xff" * 60_000_000, b"\xff\xe1\0\2" * 5_000_000, b"\xff\xd0" * 5_000_000],
    ids=["fill bytes", "empty segments", "restarts"],
)
@pytest.mark.parametrize("place", ["before the size", "after the size"])
def test_a_jpeg_with_very_much_before_its_picture_is_refused(fill, place):
    """Pillow would read it byte by byte."""
    content = jpeg()
    at = 2 if place == "before the size" else content.index(b"\xff\xda")
    message = "does not tell its size" if at == 2 else "does not begin within"
    assert refused(content[:at] + fill + content[at:], message) < 2


def test_a_segment_that_pillow_does_not_skip_hides_nothing():
    """Pillow reads the bytes that such a segment claims to hold as segments."""
    content = jpeg()
    at = content.index(b"\xff\xda")
    hidden = b"".join(b"\xff\xf0\xff\xff" + b"\xff" * 65_533 for _ in range(100))
    assert refused(content[:at] + hidden + content[at:], "does not begin within") < 1


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"icc_profile": b"p" * 3_000_000}, {"restart_marker_rows": 1}],
    ids=["plain", "progressive", "profile", "restarts"],
)
def test_a_jpeg_as_encoders_write_it_passes(options):
    """A large profile, which takes many segments, passes as well."""
    check_jpeg(jpeg(**options))
