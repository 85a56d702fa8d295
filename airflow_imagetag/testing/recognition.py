"""Labels from measurements of the pixels.

Nothing here recognises anything: a photograph of a cat gets labels for its colours, light and
shape, not "Cat". That is enough for what an emulator is for: labels depend on the picture alone,
differ between different pictures, and hardly change when a picture is encoded again.
"""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from typing import Final

from PIL import Image, ImageFilter, ImageStat

from airflow_imagetag.testing.picture import decode

MAX_LABELS: Final = 5
"""As many as the vendor's example shows."""

MIN_PROBABILITY: Final = 0.2

_COLOUR_PIXELS: Final = 64
_LEVEL_BITS: Final = 5
"""Bits kept of each channel when pixels are counted by colour; a few hundred colours remain."""

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
"""The end of each colour on the circle of hues, 0 to 1."""


def label(data: bytes) -> tuple[tuple[str, float], ...]:
    """Return labels with probabilities, most probable first: at most five, and at least one.

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
    """Return 0 well below ``middle``, 1 well above it, and a smooth rise between."""
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
