"""Labels from measurements of the pixels.

The emulator recognises nothing: a photograph of a cat gets labels for its colours, light and
shape, not "Cat". This suffices for tests: labels depend on the picture alone, differ between
different pictures, and hardly change when a picture is encoded again.
"""

from __future__ import annotations

import asyncio
import colorsys
import hashlib
import io
import math
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageFilter, ImageOps, ImageStat, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_imagetag.testing._api import Labels


THUMBNAIL_PIXELS: Final = 128
"""Maximum side of the measured picture; enough for colour and light, and fast."""

_FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""Formats that Pillow decodes by itself; for some others it starts installed programs."""

_DEEP_MODES: Final = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


class UndecodableError(Exception):
    """Raised for bytes that are no image, a truncated one or a decompression bomb."""


def decode(data: bytes, max_side: int = THUMBNAIL_PIXELS) -> Image.Image:
    """Return a small upright RGB picture of the image.

    An animation gives its first frame; transparent parts become white.

    :param data: the whole file.
    :param max_side: maximum width and height of the picture, in pixels.
    :raises UndecodableError: when the bytes do not decode to a picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _small_upright_rgb(image, max_side)
    except UndecodableError:
        raise
    # Pillow's message has the memory address of the file object.
    except UnidentifiedImageError as error:
        raise UndecodableError("no image in a known format") from error
    # Pillow's decoders raise many kinds of error for bytes that they cannot read, and the user's
    # warning filters may turn its warning of a decompression bomb into an error.
    except Exception as error:
        raise UndecodableError(f"{type(error).__name__}: {error}") from error


def _small_upright_rgb(image: Image.Image, max_side: int) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise UndecodableError(f"more than {limit} pixels")
    size = (max_side, max_side)
    image.draft(None, size)
    image.load()
    small: Image.Image = _eight_bits(image)
    small.thumbnail(size, Image.Resampling.BOX)
    # The conversion of a deep image loses the orientation that the file states.
    orientation = image.getexif().get(_ORIENTATION_TAG)
    if orientation:
        small.getexif()[_ORIENTATION_TAG] = orientation
    return _on_white(ImageOps.exif_transpose(small))


_ORIENTATION_TAG: Final = 0x0112


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in a mode that scales and blends well."""
    if image.mode in _DEEP_MODES:
        return _scaled_to_bytes(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def _scaled_to_bytes(image: Image.Image) -> Image.Image:
    wide = image.convert("F")
    _, highest = wide.getextrema()
    if not isinstance(highest, float) or not math.isfinite(highest):
        raise UndecodableError("pixel values are not finite")
    full_scale = next((top for top in (1.0, 255.0, 65535.0) if highest <= top), highest)
    if image.mode.startswith("I;16"):
        full_scale = 65535.0
    return wide.point(lambda value: value * (255.0 / full_scale) + 0.0).convert("L")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    background = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(background, image).convert("RGB")


MAX_LABELS: Final = 5
"""Maximum number of labels of an image, as in the vendor's example."""

MIN_PROBABILITY: Final = 0.2
"""Minimum probability of a label, unless it is the only one."""

_COLOUR_PIXELS: Final = 64
_LEVEL_BITS: Final = 5
"""Bits of each channel that count when pixels are grouped by colour."""

_HUES: Final = (
    (0.04, "Red"),
    (0.11, "Orange"),
    (0.19, "Yellow"),
    (0.46, "Green"),
    (0.70, "Blue"),
    (0.82, "Purple"),
    (0.94, "Pink"),
    (1.01, "Red"),
)
"""Upper bound of each colour on the circle of hues, 0 to 1."""


def label(data: bytes) -> tuple[tuple[str, float], ...]:
    """Return one to five labels with probabilities, most probable first.

    :param data: the whole image file.
    :raises UndecodableError: when the bytes do not decode to a picture.
    """
    picture = decode(data)
    scores = {
        **_colours(picture),
        **_light(picture),
        **_shape(picture),
        **_detail(picture),
    }
    ranked = sorted(scores.items(), key=lambda score: (-score[1], score[0]))
    likely = [score for score in ranked if score[1] >= MIN_PROBABILITY]
    return tuple(likely[:MAX_LABELS] or ranked[:1])


def _rise(value: float, middle: float, width: float) -> float:
    """Return a smooth step: 0 well below ``middle``, 1 well above it."""
    return 1 / (1 + math.exp(min(max((middle - value) / width, -60.0), 60.0)))


def _colours(picture: Image.Image) -> dict[str, float]:
    small = picture.copy()
    small.thumbnail((_COLOUR_PIXELS, _COLOUR_PIXELS), Image.Resampling.BOX)
    mask = 0xFF << (8 - _LEVEL_BITS) & 0xFF
    levels = small.point([value & mask for value in range(256)] * 3)
    counted: Counter[str] = Counter()
    for count, colour in levels.getcolors(_COLOUR_PIXELS**2) or ():
        if isinstance(colour, tuple):
            counted[_colour_name(*colour)] += count
    pixels = small.width * small.height
    return {name: 1 - math.exp(-3 * count / pixels) for name, count in counted.items()}


def _colour_name(red: int, green: int, blue: int) -> str:
    top = 256 - (1 << (8 - _LEVEL_BITS))
    hue, saturation, value = colorsys.rgb_to_hsv(red / top, green / top, blue / top)
    if value < 0.16:
        return "Black"
    if saturation < 0.14 or value * saturation < 0.08:
        return "White" if value > 0.86 else "Gray"
    name = next(name for end, name in _HUES if hue < end)
    if name in {"Red", "Orange", "Yellow"} and value < 0.62:
        return "Brown"
    return "Pink" if name == "Red" and saturation < 0.5 and value > 0.75 else name


def _light(picture: Image.Image) -> dict[str, float]:
    gray = ImageStat.Stat(picture.convert("L"))
    brightness, contrast = gray.mean[0] / 255, gray.stddev[0] / 255
    red, _, blue = (mean / 255 for mean in ImageStat.Stat(picture).mean)
    colourfulness = ImageStat.Stat(picture.convert("HSV")).mean[1] / 255
    return {
        "Bright": 0.95 * _rise(brightness, 0.62, 0.06),
        "Dark": 0.95 * _rise(-brightness, -0.34, 0.06),
        "High contrast": 0.9 * _rise(contrast, 0.27, 0.02),
        "Low contrast": 0.9 * _rise(-contrast, -0.13, 0.02),
        "Colorful": 0.93 * _rise(colourfulness, 0.45, 0.06),
        "Monochrome": 0.93 * _rise(-colourfulness, -0.06, 0.015),
        "Warm": 0.85 * _rise(red - blue, 0.16, 0.04),
        "Cool": 0.85 * _rise(blue - red, 0.08, 0.03),
    }


def _shape(picture: Image.Image) -> dict[str, float]:
    stretch = math.log(picture.width / picture.height)
    return {
        "Landscape orientation": 1 - math.exp(-2 * max(stretch, 0)),
        "Portrait orientation": 1 - math.exp(-2 * max(-stretch, 0)),
        "Square": 0.75 * math.exp(-((stretch / 0.15) ** 2)),
    }


def _detail(picture: Image.Image) -> dict[str, float]:
    """Measure how much neighbouring pixels differ, and whether edges are steep."""
    gray = picture.convert("L")
    edges = ImageStat.Stat(gray.filter(ImageFilter.FIND_EDGES)).mean[0] / 255
    spread = ImageStat.Stat(gray).stddev[0] + 1
    softened = ImageStat.Stat(gray.filter(ImageFilter.BoxBlur(1))).stddev[0] + 1
    steepness = 1 - softened / spread
    return {
        "Detailed": 0.9 * _rise(edges, 0.2, 0.03),
        "Plain": 0.9 * _rise(-edges, -0.05, 0.012),
        "Sharp": 0.8 * _rise(steepness, 0.12, 0.025),
        "Blurry": 0.8 * _rise(-steepness, -0.025, 0.008),
    }


CHINESE: Final = {
    "Black": "\u9ed1\u8272",
    "Blue": "\u84dd\u8272",
    "Blurry": "\u6a21\u7cca",
    "Bright": "\u660e\u4eae",
    "Brown": "\u68d5\u8272",
    "Colorful": "\u8272\u5f69\u4e30\u5bcc",
    "Cool": "\u51b7\u8272\u8c03",
    "Dark": "\u660f\u6697",
    "Detailed": "\u7ec6\u8282\u4e30\u5bcc",
    "Gray": "\u7070\u8272",
    "Green": "\u7eff\u8272",
    "High contrast": "\u9ad8\u5bf9\u6bd4\u5ea6",
    "Landscape orientation": "\u6a2a\u5411",
    "Low contrast": "\u4f4e\u5bf9\u6bd4\u5ea6",
    "Monochrome": "\u5355\u8272",
    "Orange": "\u6a59\u8272",
    "Pink": "\u7c89\u8272",
    "Plain": "\u7b80\u5355",
    "Portrait orientation": "\u7ad6\u5411",
    "Purple": "\u7d2b\u8272",
    "Red": "\u7ea2\u8272",
    "Sharp": "\u6e05\u6670",
    "Square": "\u6b63\u65b9\u5f62",
    "Warm": "\u6696\u8272\u8c03",
    "White": "\u767d\u8272",
}
"""Chinese name of each label."""

_THREADS: Final = 2
_CACHED_IMAGES: Final = 4096
"""Maximum number of images whose labels are cached."""


class CachedRecognizer:
    """Label images in a thread pool, and cache the labels by content; for one event loop only.

    :param label_image: returns the labels of an image file, or raises ``UndecodableError``.
    :param threads: number of images that are labelled at the same time.
    :param language: language of the labels: ``en`` or ``zh``.
    """

    def __init__(
        self,
        label_image: Callable[[bytes], Labels] = label,
        threads: int = _THREADS,
        language: str = "en",
    ) -> None:
        self._names = CHINESE if language == "zh" else {}
        self._label_image = label_image
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="imagetag-emulator-labels")
        self._cache: OrderedDict[str, Labels] = OrderedDict()

    async def label(self, image: bytes) -> tuple[str, Labels]:
        """Return the SHA-256 of the image in hexadecimal, and its labels.

        :raises UndecodableError: when the bytes do not decode to a picture.
        """
        image_id = hashlib.sha256(image).hexdigest()
        labels = self._cache.get(image_id)
        if labels is None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._pool, self._label_image, image)
            labels = tuple((self._names.get(name, name), share) for name, share in found)
            self._cache[image_id] = labels
            if len(self._cache) > _CACHED_IMAGES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(image_id)
        return image_id, labels

    def close(self) -> None:
        """End the threads after the measurements in progress."""
        self._pool.shutdown(cancel_futures=True)
