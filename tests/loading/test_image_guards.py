"""Damaged and costly images of every format, and odd ones that are fine."""

from __future__ import annotations

import io
import random
import struct
import threading
import time
import zlib
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.loading.deadline import within
from airflow_imagetag.loading.downscaling import downscale

RED = (200, 40, 40)


def save(picture: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def photograph(width: int = 900, height: int = 600) -> Image.Image:
    """Draw coarse noise: like a photograph, it needs fewer bytes if it is smaller."""
    values = np.random.default_rng(3).integers(0, 256, (height // 12, width // 12, 3), np.uint8)
    coarse = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
    fine = np.random.default_rng(4).integers(0, 40, (height, width, 3), np.uint8)
    return Image.fromarray((np.asarray(coarse) * 0.8).astype(np.uint8) + fine)


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def png(pixels: bytes, *more: bytes, depth: int = 8, colour: int = 2, side: int = 40) -> bytes:
    """Return a PNG of given rows, with further chunks before its data."""
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(pixels))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def pixel(content: bytes, at: tuple[int, int] = (5, 5), max_bytes: int = 50_000) -> object:
    """Return a pixel of the picture that is sent."""
    return Image.open(io.BytesIO(downscale(content, max_bytes=max_bytes))).getpixel(at)


def near(found: Any, expected: tuple[int, int, int]) -> bool:
    """Tell whether two colours are alike."""
    return bool(np.abs(np.subtract(found, expected)).max() <= 6)


def refused(content: bytes, message: str) -> None:
    """Check that an image is refused within a second of CPU time."""
    began = time.process_time()
    with pytest.raises(ImageDecodeError, match=message):
        downscale(content, max_bytes=10_000)
    assert time.process_time() - began < 2


# -- damaged files


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("is_lenient", [False, True])
def test_half_a_file_is_not_decoded(image_format, is_lenient, monkeypatch):
    """Another library in the process may have asked Pillow for lenient decoding."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_lenient)
    content = save(photograph(), image_format)
    refused(content[: len(content) // 2], "cut off")
    assert is_lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("is_lenient", [False, True])
def test_damaged_bytes_of_a_png_are_noticed(is_lenient, monkeypatch):
    """Pillow itself checks no sum of the picture's data."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_lenient)
    content = bytearray(save(photograph()))
    middle = len(content) // 2
    content[middle : middle + 64] = random.Random(1).randbytes(64)
    refused(bytes(content), "check sum is wrong")


@pytest.mark.parametrize("name", [b"tEXt", b"pHYs", b"prVt"])
def test_a_damaged_chunk_of_metadata_is_noticed(name):
    """A file that is damaged there may be damaged elsewhere."""
    wrong = chunk(name, b"some text")[:-1] + b"\0"
    refused(png(bytes(121 * 40), wrong), "check sum is wrong")


def test_data_of_a_png_that_ends_too_early():
    """The stream is valid, and has half of the rows."""
    refused(png(bytes(121 * 20)), "ends too early")


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_a_jpeg_whose_data_ends_too_early(options):
    """The end of the file is in its place, and libjpeg makes the rest of the picture grey."""
    content = save(photograph(), "JPEG", **options)
    refused(content[: len(content) // 2] + b"\xff\xd9", "cut off|truncated")


def test_a_marker_in_the_data_of_a_jpeg():
    """The data behind it is not read."""
    content = save(photograph(), "JPEG")
    middle = len(content) // 2
    refused(content[:middle] + b"\xff\x37" + content[middle + 2 :], "truncated")


# -- costly files


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([chunk(b"prVt", b"")] * 1_000_000, "chunks"),
        ([chunk(b"IDAT", b"")] * 1_000_000, "chunks"),
    ],
    ids=["metadata", "data"],
)
def test_a_png_of_very_many_chunks(more, message):
    """Reading them one by one would take seconds."""
    refused(png(bytes(121 * 40), *more), message)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_compressed_metadata_of_a_png_is_not_inflated(name):
    """The picture is fine, and metadata takes no memory."""
    bomb = zlib.compress(bytes(50_000_000))
    head = b"name\0\1\0\0\0" if name == b"iTXt" else b"name\0\0"
    content = png((b"\0" + bytes(RED) * 40) * 40, *[chunk(name, head + bomb)] * 20)
    assert near(pixel(content), RED)


def test_a_bmp_of_runs_with_very_many_rows():
    """Pillow fills each row pixel by pixel."""
    header = struct.pack("<IiiHHIIiiII", 40, 8_000, 8_000, 1, 8, 1, 0, 0, 0, 0, 0)
    palette = b"".join(bytes([i, 0, 255 - i, 0]) for i in range(256))
    head = struct.pack("<2sIII", b"BM", 0, 0, 54 + len(palette)) + header + palette
    began = time.process_time()
    assert downscale(head + b"\0\0" * 8_000, max_bytes=2_000_000)
    assert time.process_time() - began < 8
    refused(head + b"\0\0" * 20 + b"\0\1", "rows of it are missing")


def test_the_pixels_of_a_bmp_of_runs():
    """Runs, literal pixels, jumps and nibbles have the same colours as plain rows."""
    palette = bytes([0, 0, 0, 0, 40, 40, 200, 0, 200, 60, 40, 0]) + bytes(13 * 4)
    rows = b"\x14\x11" + b"\0\x14" + b"\x22" * 10 + b"\0\0"
    header = struct.pack("<IiiHHIIiiII", 40, 40, 40, 1, 4, 2, 0, 0, 0, 16, 0)
    head = struct.pack("<2sIII", b"BM", 0, 0, 54 + len(palette)) + header + palette
    content = head + rows * 40 + b"\0\1"
    assert near(pixel(content, (5, 5)), RED)
    assert near(pixel(content, (35, 35)), (40, 60, 200))


@pytest.mark.parametrize("block", [b"\1x", b"\xff" + b"x" * 255], ids=["tiny", "long"])
def test_a_comment_of_a_gif_is_skipped(block):
    """Pillow would join its blocks."""
    content = save(Image.new("RGB", (40, 40), RED).quantize(4), "GIF")
    at = content.index(b",")
    comment = b"!\xfe" + block * 200_000 + b"\0"
    assert near(pixel(content[:at] + comment + content[at:]), RED)
    refused(content[:at] + comment * 10 + content[at:], "blocks")


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP"])
def test_the_frames_of_an_animation_are_not_read(image_format):
    """Bytes of later frames may be broken."""
    frames = [Image.new("RGB", (40, 40), (n, n, n)) for n in range(30)]
    content = save(
        Image.new("RGB", (40, 40), RED), image_format, save_all=True, append_images=frames
    )
    assert near(pixel(content), RED)


def test_a_decoder_that_does_not_end_is_left_behind():
    """Its memory and its thread stay reserved until it ends."""
    end, slots = threading.Event(), threading.Semaphore(1)
    with pytest.raises(ImageDecodeError, match=r"more than 0\.01 seconds"):
        within(0.01, lambda: end.wait(60), holding=nullcontext(), slots=slots)
    with pytest.raises(ImageDecodeError, match="other images"):
        within(0.01, lambda: True, holding=nullcontext(), slots=slots)
    end.set()
    assert within(60, lambda: True, holding=nullcontext(), slots=slots)


# -- odd files that are fine


@pytest.mark.parametrize("junk", [b"\0\0\0", b"junk" * 500, b"\xff\xff\0x", b"\xff\xd0"])
def test_junk_between_the_segments_of_a_jpeg_is_skipped(junk):
    """Pillow and libjpeg skip it as well."""
    content = save(Image.new("RGB", (40, 40), RED), "JPEG")
    scan = content.index(b"\xff\xda")
    places = [content.index(marker) for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4")]
    for at in (*places, scan, content.index(b"\xff\xd9", scan)):
        assert near(pixel(content[:at] + junk + content[at:]), RED)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_metadata_is_not_sent(image_format):
    """The service sees the picture only, however long a comment is."""
    exif = Image.Exif()
    exif[0x010E] = "secret"
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "secret" * 20_000)
    options = {"PNG": {"pnginfo": info}}.get(image_format, {"comment": b"secret" * 10_000})
    content = save(photograph(), image_format, exif=exif, **options)
    sent = downscale(content, max_bytes=40_000)
    assert b"secret" not in sent
    assert set(Image.open(io.BytesIO(sent)).info) <= {
        *("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi")
    }


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth_becomes_white(depth):
    """Of two greys one is transparent; the other keeps its level."""
    most = (1 << depth) - 1
    pair = [0, most // 3 or 1]
    bits = f"{0:0{depth}b}" * 20 + f"{pair[1]:0{depth}b}" * 20
    row = b"\0" + int(bits, 2).to_bytes(5 * depth)
    content = png(row * 40, chunk(b"tRNS", struct.pack(">H", 0)), depth=depth, colour=0)
    level = round(255 * pair[1] / most)
    assert near(pixel(content, (5, 20)), (255, 255, 255))
    assert near(pixel(content, (35, 20)), (level, level, level))


def test_a_transparent_colour_of_sixteen_bits_becomes_white():
    """The colour is compared in the depth of the file."""
    row = b"\0" + struct.pack(">3H", 51_400, 10_280, 10_280) * 20 + bytes(6) * 20
    content = png(row * 40, chunk(b"tRNS", bytes(6)), depth=16)
    assert near(pixel(content, (5, 20)), RED)
    assert near(pixel(content, (35, 20)), (255, 255, 255))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_the_colours_of_a_jpeg_are_those_of_pillow(mode, options):
    """The segments that tell its colours are kept."""
    content = save(photograph().convert(mode), "JPEG", quality=95, **options)
    expected = save(Image.open(io.BytesIO(content)).convert("RGB"), "JPEG", quality=85)
    there = np.asarray(Image.open(io.BytesIO(expected)), np.int16)
    sent = Image.open(io.BytesIO(downscale(content, max_bytes=1_000_000)))
    assert sent.size == (900, 600)
    assert np.abs(np.asarray(sent, np.int16) - there).mean() < 1


# -- as large as fits


def test_the_full_size_is_sent_if_it_fits():
    """Even if the file itself was far larger."""
    picture = photograph()
    size = len(save(picture, "JPEG", quality=85))
    sent = downscale(save(picture), max_bytes=size + 100)
    assert Image.open(io.BytesIO(sent)).size == picture.size


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3, 0.6, 0.9, 0.99])
def test_a_smaller_size_uses_most_of_the_limit(share):
    """At least 60 % of it."""
    picture = photograph()
    limit = int(share * len(save(picture, "JPEG", quality=85)))
    assert 0.6 * limit <= len(downscale(save(picture), max_bytes=limit)) <= limit
