"""The format and size in the first bytes of an image, compared with those that Pillow reads."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, features

from airflow_imagetag.loading.headers import format_of, size_of

SIZED = ("BMP", "JPEG", "PNG")


def file_of(image_format: str, size: tuple[int, int] = (71, 33), **options: object) -> bytes:
    """Return a file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, image_format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "image_format", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "ICO", "JPEG2000", "PDF", "AVIF"]
)
def test_the_first_bytes_identify_the_format(image_format):
    """The format is named as Pillow names it."""
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    assert format_of(file_of(image_format)) == image_format


@pytest.mark.parametrize("content", [b"", b"\x89", b"a text", b"<html>", b"\xff\xd8", bytes(64)])
def test_bytes_that_are_no_image_have_no_format(content):
    """The format is not guessed."""
    assert format_of(content) is None


@pytest.mark.parametrize("image_format", SIZED)
@pytest.mark.parametrize("size", [(1, 1), (50, 7), (3000, 2)])
def test_the_size_is_that_of_the_header(image_format, size):
    """Width comes first."""
    assert size_of(file_of(image_format, size), image_format) == size


def test_the_size_of_a_jpeg_with_large_metadata():
    """Camera data and profiles precede the size, in segments of 64 KB."""
    exif = b"Exif\0\0" + b"x" * 60_000
    content = file_of("JPEG", exif=exif, icc_profile=b"p" * 300_000, progressive=True)
    assert size_of(content, "JPEG") == (71, 33)


def test_a_bitmap_that_is_stored_from_the_top():
    """Its height is negative in the file."""
    content = bytearray(file_of("BMP"))
    content[22:26] = (-33).to_bytes(4, "little", signed=True)
    assert size_of(bytes(content), "BMP") == (71, 33)


def test_the_oldest_bitmaps():
    """Width and height have two bytes each."""
    header = b"BM" + bytes(12) + b"\x0c\0\0\0" + b"\x47\0" + b"\x21\0" + bytes(8)
    assert size_of(header, format_of(header)) == (71, 33)


@pytest.mark.parametrize("image_format", SIZED)
def test_a_header_that_is_cut_off_has_no_size(image_format):
    """The result is a size or None at every length, and never an error."""
    content = file_of(image_format)
    found = {size_of(content[:length], image_format) for length in range(len(content))}
    assert found == {None, (71, 33)}


@pytest.mark.parametrize("image_format", SIZED)
def test_a_header_of_noise_is_no_error(image_format):
    """Random bytes have a valid size or none."""
    generator = random.Random(7)
    start = file_of(image_format)[:8]
    for _ in range(300):
        size = size_of(start + generator.randbytes(generator.randrange(80)), image_format)
        assert size is None or min(size) > 0


def test_a_jpeg_of_very_many_segments_has_no_size():
    """Reading millions of empty segments would keep the event loop busy."""
    assert size_of(b"\xff\xd8" + b"\xff\xe1\0\2" * 1_000_000, "JPEG") is None


def test_other_formats_are_not_read():
    """No service that gives advice on sizes takes them."""
    assert size_of(file_of("GIF"), "GIF") is None
    assert size_of(b"", None) is None
