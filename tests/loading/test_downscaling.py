"""Pictures that are made smaller: real files of every kind, and the JPEGs made of them."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from airflow_imagetag.errors import ImageDecodeError, ImageTooLargeError
from airflow_imagetag.loading import downscaling
from airflow_imagetag.loading.downscaling import downscale

LEFT, RIGHT = (200, 40, 40), (40, 60, 200)


def save(picture: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    return file.getvalue()


def halves(size: tuple[int, int] = (640, 320), mode: str = "RGB") -> Image.Image:
    """Draw a picture that is red on the left and blue on the right."""
    picture = Image.new("RGB", size, RIGHT)
    picture.paste(LEFT, (0, 0, size[0] // 2, size[1]))
    return picture.convert(mode)


def noise(width: int, height: int) -> Image.Image:
    """Draw a picture that no encoding makes small."""
    values = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def smaller(content: bytes, max_bytes: int) -> Image.Image:
    """Make a picture smaller and check the properties of every result."""
    made = downscale(content, max_bytes=max_bytes)
    assert len(made) <= max_bytes
    picture = Image.open(io.BytesIO(made))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    assert not picture.getexif()
    picture.load()
    return picture


def near(found: Any, expected: tuple[int, ...], by: int = 12) -> bool:
    """Tell whether two colours are alike."""
    return all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


def assert_halves(picture: Image.Image) -> None:
    """Check that red is still on the left, and blue on the right."""
    width, height = picture.size
    assert near(picture.getpixel((width // 4, height // 2)), LEFT)
    assert near(picture.getpixel((3 * width // 4, height // 2)), RIGHT)


def rotated() -> bytes:
    """Return a picture that lies on its side, with a note of it in its metadata."""
    exif = Image.Exif()
    exif[0x0112] = 6
    # Turned back by a quarter, as a camera that is held upright stores it.
    return save(halves().rotate(90, expand=True), "JPEG", exif=exif, quality=95)


KINDS = {
    "jpeg": lambda: save(halves(), "JPEG", quality=95),
    "progressive": lambda: save(halves(), "JPEG", quality=95, progressive=True),
    "mpo": lambda: save(halves(), "MPO", save_all=True, append_images=[halves()]),
    "cmyk": lambda: save(halves(mode="CMYK"), "JPEG", quality=95),
    "rotated": rotated,
    "png": lambda: save(halves()),
    "palette": lambda: save(halves().quantize(8)),
    "transparent": lambda: save(halves(mode="RGBA")),
    "bmp": lambda: save(halves(), "BMP"),
    "gif": lambda: save(halves(), "GIF"),
    "webp": lambda: save(halves(), "WEBP", quality=95),
}


@pytest.mark.parametrize("max_bytes", [3_000, 30_000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_the_same_but_smaller(kind, max_bytes):
    """The result is an upright RGB JPEG with the same colours and aspect."""
    picture = smaller(KINDS[kind](), max_bytes)
    assert_halves(picture)
    assert picture.width / picture.height == pytest.approx(2, rel=0.03)
    assert picture.width <= 640


def test_a_picture_whose_encoding_alone_is_too_large_keeps_its_size():
    """It is never made larger, and not smaller without need."""
    for size in ((640, 320), (64, 32), (1, 1)):
        assert smaller(save(halves(size), "BMP") + bytes(200_000), 200_000).size == size


@pytest.mark.parametrize("max_bytes", [5_000, 50_000, 500_000])
def test_a_picture_that_no_encoding_makes_small(max_bytes):
    """The result is as small as it must be, and not much smaller."""
    made = downscale(save(noise(1200, 900)), max_bytes=max_bytes)
    assert 0.4 * max_bytes < len(made) <= max_bytes


@pytest.mark.parametrize("size", [(70_000, 40), (40, 70_000), (200_000, 1)])
def test_a_picture_longer_than_a_jpeg_can_be(size):
    """Its aspect is kept as far as whole pixels allow."""
    picture = smaller(save(Image.new("RGB", size, "teal")), 3_000_000)
    assert max(picture.size) <= downscaling.MAX_SIDE_PIXELS
    assert min(picture.size) >= 1


@pytest.mark.parametrize(
    ("mode", "colour"),
    [
        ("RGBA", (200, 40, 40, 0)),
        ("LA", (10, 0)),
        ("RGB", (200, 40, 40)),
        ("GIF", None),
        ("WEBP", None),
    ],
)
def test_transparent_pixels_become_white(mode, colour):
    """They become neither black nor the colour that is hidden there."""
    if mode == "RGB":
        content = save(Image.new(mode, (400, 400), colour), transparency=colour)
    elif colour is None:
        content = save(Image.new("RGBA", (400, 400), (200, 40, 40, 0)), mode)
    else:
        content = save(Image.new(mode, (400, 400), colour))
    picture = smaller(content, 3_000)
    assert near(picture.getpixel((5, 5)), (255, 255, 255))


def test_half_transparent_pixels_are_blended_with_white():
    """The colour is the one that a browser shows."""
    content = save(Image.new("RGBA", (400, 400), (200, 0, 0, 128)))
    assert near(smaller(content, 3_000).getpixel((5, 5)), (228, 127, 127))


@pytest.mark.parametrize("level", [0, 20, 128, 255])
def test_sixteen_bits_become_eight(level):
    """The upper bits are kept, also of a dark picture."""
    values = np.full((300, 300), level * 257, dtype=np.uint16)
    assert near(smaller(save(Image.fromarray(values)), 2_000).getpixel((9, 9)), (level,) * 3, by=2)


def test_one_bit_and_grey_pictures():
    """They are converted to RGB."""
    for mode in ("1", "L"):
        assert near(
            smaller(save(Image.new(mode, (300, 300), 255)), 2_000).getpixel((9, 9)), (255,) * 3
        )


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(image_format):
    """A label service labels the first frame, too."""
    others = [Image.new("RGB", (640, 320), "black")] * 3
    content = save(halves(), image_format, save_all=True, append_images=others, duration=50)
    assert_halves(smaller(content, 3_000))


def test_an_rgb_profile_is_kept_and_any_other_dropped():
    """It still fits the colours; one of another colour space does not; a huge one takes room."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = profile[:16] + b"GRAY" + profile[20:]
    for given, kept in ((profile, profile), (grey, None), (profile + bytes(70_000), None)):
        content = save(halves(), "JPEG", quality=95, icc_profile=given)
        assert smaller(content, 6_000).info.get("icc_profile") == kept


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_camera_data_does_not_matter():
    """Only the picture is sent."""
    content = save(halves(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f broken")
    assert_halves(smaller(content, 3_000))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_however_it_was_stored(orientation):
    """All eight orientations of a camera are applied."""
    stored = halves()
    exif = stored.getexif()
    exif[0x0112] = orientation
    content = save(stored, "JPEG", quality=95, exif=exif)
    picture = smaller(content, 5_000)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert (picture.width > picture.height) == (upright.width > upright.height)
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)):
        there = upright.getpixel((int(x * upright.width), int(y * upright.height)))
        assert isinstance(there, tuple)
        assert near(picture.getpixel((int(x * picture.width), int(y * picture.height))), there)


# -- images that cannot be made smaller


def png(width: int, height: int) -> bytes:
    """Return a PNG that has almost no bytes for its many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + -(-width // 8))
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content",
    [
        lambda: png(20_000, 20_000),
        lambda: save(Image.new("L", (7_100, 7_100)), "WEBP", lossless=True, method=0, quality=0),
    ],
    ids=["png", "webp"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(content):
    """Its number of pixels decides, and Pillow's own limit stays as it was."""
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageTooLargeError, match=r"pixels"):
        downscale(content(), max_bytes=1_000)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_lower_limit_of_the_worker_holds(monkeypatch):
    """A lower limit of Pillow's own is respected."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(ImageTooLargeError, match="not decoded"):
        downscale(save(halves()), max_bytes=1_000)


def test_a_photograph_below_the_limit_warns_of_nothing():
    """The limit of this package is just below the one at which Pillow begins to warn."""
    most = downscaling.MAX_MEMORY_BYTES // downscaling.BYTES_PER_PIXEL
    assert Image.MAX_IMAGE_PIXELS is not None
    assert 80_000_000 < most < Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif"])
def test_a_file_that_is_cut_off_cannot_be_decoded(kind):
    """Half a picture is not sent as a whole one."""
    content = save(noise(300, 300), kind.upper())
    with pytest.raises(ImageDecodeError, match=r"too large to be sent\. The image cannot be"):
        downscale(content[: len(content) // 2], max_bytes=3_000)


@pytest.mark.parametrize(
    "content", [b"", b"a text" * 1000, b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(99)]
)
def test_bytes_that_are_no_picture_cannot_be_decoded(content):
    """No program is started for formats that Pillow itself cannot read."""
    with pytest.raises(ImageDecodeError):
        downscale(content, max_bytes=10)


def test_a_tiff_is_not_decoded():
    """Its tiles would be unpacked whole, and the pixels of the picture do not bound their size."""
    with pytest.raises(ImageDecodeError, match="a TIFF, which is not decoded"):
        downscale(save(halves(), "TIFF", compression="tiff_lzw"), max_bytes=3_000)


def test_a_limit_that_nothing_fits():
    """The attempts end, and the message names the limit."""
    with pytest.raises(ImageTooLargeError, match="100 bytes"):
        downscale(save(halves()), max_bytes=100)


def test_many_threads_get_the_results_of_one():
    """They share no state but the memory budget."""
    contents = [save(noise(200 + number, 200)) for number in range(12)]
    alone = [downscale(content, max_bytes=9_000) for content in contents]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda c: downscale(c, max_bytes=9_000), contents))
    assert together == alone
    assert threading.active_count() < 20
