"""Labels depend on the picture, not on its file format."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from airflow_imagetag.testing._labels import UndecodableError, decode, label

PHOTOGRAPHS = [
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
]


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def names(data: bytes) -> set[str]:
    """Return the names of the labels."""
    return {name for name, _ in label(data)}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_gets_up_to_five_ranked_labels(photographs, name):
    """Labels are distinct and ranked, with probabilities between 0 and 1."""
    labels = label((photographs / name).read_bytes())
    assert 1 <= len(labels) <= 5
    assert len({name for name, _ in labels}) == len(labels)
    probabilities = [probability for _, probability in labels]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0.2 <= probability <= 1 for probability in probabilities)


def test_different_photographs_get_different_labels(photographs):
    """No two photographs share all their labels and probabilities."""
    answers = [label((photographs / name).read_bytes()) for name in PHOTOGRAPHS]
    for one, other in itertools.combinations(answers, 2):
        assert one != other


def test_labels_describe_the_measured_pixels(photographs):
    """A dusk sky is blue, a retina red, a galaxy field dark, and a gray photograph monochrome."""
    expected = {
        "rocket.jpg": {"Blue", "Dark", "Landscape orientation"},
        "retina.jpg": {"Red", "Colorful", "Square"},
        "hubble_deep_field.jpg": {"Black", "Dark"},
        "coffee.png": {"Warm", "Orange"},
        "coins.png": {"Gray", "Monochrome"},
    }
    for file, labels in expected.items():
        assert labels <= names((photographs / file).read_bytes())


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"quality": 60}),
        ("PNG", {}),
        ("WEBP", {"quality": 70}),
        ("BMP", {}),
        ("TIFF", {}),
        ("GIF", {}),
    ],
)
def test_encoding_a_picture_again_hardly_changes_its_labels(photographs, file_format, options):
    """A picture in another format has the same labels, with nearly the same probabilities."""
    original = (photographs / "rocket.jpg").read_bytes()
    with Image.open(io.BytesIO(original)) as image:
        again = dict(label(encoded(image, file_format, **options)))
    for name, probability in label(original):
        assert again[name] == pytest.approx(probability, abs=0.1)


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((220, 20, 20), "Red"),
        ((250, 140, 20), "Orange"),
        ((240, 220, 30), "Yellow"),
        ((30, 160, 40), "Green"),
        ((30, 60, 200), "Blue"),
        ((130, 40, 190), "Purple"),
        ((250, 120, 190), "Pink"),
        ((110, 60, 20), "Brown"),
        ((5, 5, 5), "Black"),
        ((250, 250, 250), "White"),
        ((128, 128, 128), "Gray"),
    ],
)
def test_every_colour_has_its_name(colour, name):
    """A picture of one colour gets that label, almost certainly."""
    assert dict(label(encoded(Image.new("RGB", (40, 40), colour), "PNG")))[name] > 0.9


def modes() -> list[tuple[str, bytes]]:
    """Return a blue picture in modes that are difficult for decoders."""
    blue = Image.new("RGB", (160, 40), (30, 60, 200))
    clear = Image.new("RGBA", (160, 40), (0, 0, 0, 0))
    clear.paste(blue, (0, 0))
    frames = {"save_all": True, "append_images": [Image.new("RGB", (160, 40), "red")]}
    return [
        ("CMYK", encoded(blue.convert("CMYK"), "JPEG")),
        ("palette", encoded(blue.convert("P", palette=Image.Palette.ADAPTIVE), "PNG")),
        ("alpha", encoded(clear, "PNG")),
        ("animated GIF", encoded(blue, "GIF", **frames)),
        ("animated WebP", encoded(blue, "WEBP", **frames)),
        ("pages", encoded(blue, "TIFF", **frames)),
    ]


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in modes()])
def test_every_kind_of_file_is_converted(data):
    """Every mode gives the label Blue; an animation gives its first frame."""
    assert {"Blue", "Landscape orientation"} <= names(data)


def test_transparent_is_white():
    """Transparent pixels are white, not of their hidden colour."""
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert "White" in names(encoded(clear, "PNG"))
    assert "Red" not in names(encoded(clear, "PNG"))
    indexed = Image.new("P", (40, 40))
    indexed.putpalette([255, 0, 0] * 256)
    assert "White" in names(encoded(indexed, "PNG", transparency=0))


def test_sixteen_bits_are_scaled_not_clipped():
    """Middle gray in 16 bits is gray, not white."""
    gray = Image.new("I;16", (40, 40), 32768)
    assert "Gray" in names(encoded(gray, "PNG"))
    assert "Gray" in names(encoded(Image.new("F", (40, 40), 0.5), "TIFF"))


def test_numbers_that_are_no_brightness_are_undecodable():
    """A picture with an infinite pixel value is undecodable."""
    with pytest.raises(UndecodableError, match="finite"):
        label(encoded(Image.new("F", (4, 4), float("inf")), "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_the_rotation_that_a_file_states_is_obeyed(mode):
    """A photograph of a rotated camera is portrait, also with 16 bits."""
    image = Image.new(mode, (160, 40))
    turned = image.getexif()
    turned[0x0112] = 6
    assert "Portrait orientation" in names(encoded(image, "PNG", exif=turned))


def test_tiny_and_narrow_pictures_are_labelled():
    """One pixel, a line and a column have labels."""
    for size in ((1, 1), (2000, 1), (1, 2000)):
        assert label(encoded(Image.new("RGB", size, "white"), "PNG"))


def oversized_png(width: int, height: int) -> bytes:
    """Return a PNG that states a size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_undecodable_even_where_pillow_only_warns():
    """An image over Pillow's limit of pixels is not decoded, slightly or far over it."""
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    for pixels in (limit + 1000, 3 * limit):
        with pytest.raises(UndecodableError):
            decode(oversized_png(pixels // 1000 + 1, 1000))


@pytest.mark.parametrize(
    "data", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF"]
)
def test_bytes_that_are_no_image_are_undecodable(data):
    """Bytes without a picture raise UndecodableError, without a memory address."""
    with pytest.raises(UndecodableError) as caught:
        label(data)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("name", ["rocket.jpg", "coffee.png"])
def test_a_truncated_image_is_undecodable(photographs, name):
    """A part of a file is undecodable."""
    data = (photographs / name).read_bytes()
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(UndecodableError):
            label(data[: int(len(data) * share)])


def test_chinese_labels(small_jpegs: Callable[[int], list[bytes]]):
    """The emulator names the same labels in Chinese, as the service does."""
    import asyncio

    from airflow_imagetag.testing._labels import CHINESE, CachedRecognizer

    [image] = small_jpegs(1)
    english, chinese = CachedRecognizer(), CachedRecognizer(language="zh")
    _, given = asyncio.run(english.label(image))
    _, named = asyncio.run(chinese.label(image))
    english.close()
    chinese.close()
    assert named == tuple((CHINESE[name], share) for name, share in given)
