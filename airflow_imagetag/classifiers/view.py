"""What a model sees of a picture: its centre, upright, in the size and the numbers of its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class View:
    """The input of a model.

    :param height: in pixels.
    :param width: in pixels.
    :param crop: share of the shorter side that the picture is cropped to.
    :param dtype: type of its numbers, as NumPy names it; ``uint8`` takes pixels as they are.
    :param is_channels_first: the order is NCHW, not NHWC.
    :param mean: is subtracted from each channel, where white is 1.
    :param std: each channel is divided by it.
    """

    height: int
    width: int
    crop: float
    dtype: str = "uint8"
    is_channels_first: bool = False
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)

    @property
    def draft_pixels(self) -> int:
        """Width and height of a picture that loses nothing by the reduction to the input."""
        return 2 * round(max(self.height, self.width) / self.crop)

    def cropped(self, picture: Image, *, is_turned: bool = False) -> Image:
        """Return the centre of an RGB picture in the input's size.

        The largest centre of the input's aspect is taken, and the share ``crop`` of it.

        :param is_turned: the picture lies on its side, and so does the result.
        """
        from PIL import Image

        size = (self.height, self.width) if is_turned else (self.width, self.height)
        scale = self.crop * min(picture.width / size[0], picture.height / size[1])
        left = max(0.0, (picture.width - size[0] * scale) / 2)
        top = max(0.0, (picture.height - size[1] * scale) / 2)
        box = (left, top, picture.width - left, picture.height - top)
        return picture.resize(size, Image.Resampling.BICUBIC, box)

    def batch(self, picture: Image) -> Pixels:
        """Return the input for one picture.

        :param picture: RGB, in the input's size.
        """
        import numpy as np

        pixels = np.asarray(picture)
        if self.dtype == "uint8":
            values = pixels
        else:
            mean = np.asarray(self.mean, np.float32) * np.float32(255)
            factor = np.float32(1 / 255) / np.asarray(self.std, np.float32)
            values = ((pixels - mean) * factor).astype(self.dtype, copy=False)
        if self.is_channels_first:
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values[None])
