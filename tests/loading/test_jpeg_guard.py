"""JPEGs that cost much more to decode than they should, and those that only look like them."""

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


def with_scans(more: int, filling: bytes = b"") -> bytes:
    """Return a progressive JPEG whose last scan stands there some times more."""
    content = jpeg(progressive=True).removesuffix(END)
    last = filling + content[content.rindex(b"\xff\xda") :]
    return content + last * more + END


def refused(content: bytes, message: str) -> float:
    """Check that a picture is refused; return in how many seconds."""
    began = time.monotonic()
    with pytest.raises(ImageDecodeError, match=message):
        downscale(content, max_bytes=2_000)
    return time.monotonic() - began


@pytest.mark.parametrize(
    "filling",
    [
        b"",
        b"\xff\xff\xff",
        b"\xff\xd0\xff\xd1",
        b"\xff\x02\xff\xff",
        b"\xff\xfe\x00\x04" + END,
    ],
    ids=["none", "filling bytes", "restarts", "reserved marker", "end within a comment"],
)
def test_a_jpeg_of_very_many_scans_is_refused(filling):
    """Each makes libjpeg go over the whole picture, and has but a few bytes."""
    assert refused(with_scans(3_000, filling), "more than 100 scans") < 1


def test_a_jpeg_of_very_many_tables_is_refused():
    """Nobody walks along millions of empty segments to look for a scan."""
    many = b"\xff\xe1\0\2" * 1_000_000
    content = with_scans(0).removesuffix(END) + many + b"\xff\xda" * (MAX_SCANS + 1) + END
    assert refused(content, "scans") < 1


def test_a_jpeg_of_many_scans_is_made_smaller():
    """There are tools that make a few dozen."""
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
def test_what_is_beside_the_picture_is_not_counted(content):
    """Phones append a film to a photograph, in which any bytes may stand."""
    assert downscale(content(), max_bytes=2_000)


@pytest.mark.parametrize(
    "filling",
    [b"\xff" * 60_000_000, b"\xff\xe1\0\2" * 5_000_000, b"\xff\xd0" * 5_000_000],
    ids=["filling bytes", "empty segments", "restarts"],
)
@pytest.mark.parametrize("place", ["before the size", "after the size"])
def test_a_jpeg_that_never_comes_to_its_picture_is_refused(filling, place):
    """Pillow would read it byte by byte."""
    content = jpeg()
    at = 2 if place == "before the size" else content.index(b"\xff\xda")
    message = "does not tell its size" if at == 2 else "does not begin within"
    assert refused(content[:at] + filling + content[at:], message) < 2


def test_a_segment_that_only_claims_a_length_hides_nothing():
    """Pillow does not skip such, so what they claim to hold would be read as segments."""
    content = jpeg()
    at = content.index(b"\xff\xda")
    hidden = b"".join(b"\xff\xf0\xff\xff" + b"\xff" * 65_533 for _ in range(100))
    assert refused(content[:at] + hidden + content[at:], "does not begin within") < 1


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"icc_profile": b"p" * 3_000_000}, {"restart_marker_rows": 1}],
    ids=["plain", "progressive", "profile", "restarts"],
)
def test_a_jpeg_as_encoders_make_it_passes(options):
    """Also with a large profile, which takes many segments."""
    check_jpeg(jpeg(**options))
