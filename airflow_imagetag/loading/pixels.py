"""Turn a decoded picture into upright RGB of 8 bits, on white, within a bound of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

_BANDS: Final = 16
"""Number of bands in which a picture is scaled: the intermediate result of one is small."""


def as_rgb(image: Image, transparent: tuple[int, ...] | None = None) -> Image:
    """Return a new RGB picture; white shows through where the original is transparent.

    :param image: a decoded picture. Pillow's own note of transparency is applied as well.
    :param transparent: the samples of a colour that is transparent.
    """
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, transparent)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    picture = image.convert("RGB")
    if transparent is not None:
        _whiten(picture, transparent * 3 if len(transparent) == 1 else transparent)
    return picture


def _on_white(picture: Image) -> Image:
    from PIL import Image

    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, (0, 0), picture)
    return white


def _from_sixteen_bits(image: Image, transparent: tuple[int, ...] | None) -> Image:
    """Keep the upper byte of each sample, whatever the order of its bytes."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    grey = (values.clip(0, 65_535) >> 8).astype(np.uint8)
    if transparent is not None:
        grey[values == transparent[0]] = 255
    return Image.fromarray(grey).convert("RGB")


def _whiten(picture: Image, colour: tuple[int, ...]) -> None:
    """Make the pixels of one colour white, in place."""
    from PIL import ImageChops

    masks = [
        picture.getchannel(index).point([255 if at == sample else 0 for at in range(256)])
        for index, sample in enumerate(colour)
    ]
    mask = ImageChops.multiply(ImageChops.multiply(masks[0], masks[1]), masks[2])
    picture.paste("white", (0, 0, *picture.size), mask)


def upright(picture: Image, orientation: int) -> Image:
    """Return the picture turned as the camera's note says."""
    from PIL.Image import Transpose

    ways = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return picture.transpose(ways[orientation]) if orientation in ways else picture


def scaled(picture: Image, scale: float) -> Image:
    """Return a smaller picture of the same aspect, at least one pixel wide and high.

    :param scale: factor of the width and height, at most 1.
    """
    from PIL import Image

    width, height = (max(int(side * scale), 1) for side in picture.size)
    made = Image.new("RGB", (width, height))
    rows = -(-height // _BANDS)
    down = picture.height / height
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        box = (0, top * down, picture.width, min(bottom * down, picture.height))
        size = (width, bottom - top)
        made.paste(picture.resize(size, Image.Resampling.HAMMING, box), (0, top))
    return made
