"""Read from a model what it takes: the order of the dimensions, the size, the type of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from airflow_imagetag.classifiers.settings import LocalModel
from airflow_imagetag.classifiers.view import View
from airflow_imagetag.errors import ConfigurationError

CHANNELS: Final = 3

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""Mean and deviation that most models for photographs were trained with, where white is 1."""

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}


def view_of(inputs: Sequence[Any], settings: LocalModel, what: str) -> View:
    """Return the view of a model.

    :param inputs: the inputs as ONNX Runtime describes them.
    :param settings: say what the model does not.
    :param what: names the model in messages.
    :raises ConfigurationError: the model takes no pictures, or does not say what the settings
        would have to.
    """
    if len(inputs) != 1:
        names = ", ".join(repr(each.name) for each in inputs)
        raise ConfigurationError(
            f"{what} has {len(inputs)} inputs ({names}); a classifier of pictures has one. Export "
            "the part that takes pixels alone."
        )
    shape = list(inputs[0].shape)
    dtype = _DTYPES.get(inputs[0].type)
    if dtype is None or len(shape) != 4:
        raise ConfigurationError(
            f"The input of {what} is {inputs[0].type} of the shape {shape}; a classifier of "
            "pictures takes float, float16 or uint8 of the shape [batch, 3, height, width] or "
            "[batch, height, width, 3]."
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ConfigurationError(
            f"{what} takes batches of {shape[0]} pictures, and is given one at a time. Export it "
            "with a batch of 1, or of any size."
        )
    is_first = _is_channels_first(shape, settings, what)
    height, width = _size(shape[2:] if is_first else shape[1:3], settings, what)
    if dtype == "uint8" and (settings.mean or settings.std):
        raise ConfigurationError(
            f"{what} takes pixels of 8 bits, so mean and std in extra have no use. Remove them."
        )
    return View(
        height,
        width,
        settings.crop,
        dtype,
        is_first,
        settings.mean or IMAGENET_MEAN,
        settings.std or IMAGENET_STD,
    )


def _is_channels_first(shape: list[Any], settings: LocalModel, what: str) -> bool:
    # A symbol, or None, is a dimension of any size.
    may_be_first, may_be_last = (
        not isinstance(side, int) or side == CHANNELS for side in (shape[1], shape[3])
    )
    if settings.layout is not None:
        is_first = settings.layout == "NCHW"
        if not (may_be_first if is_first else may_be_last):
            raise ConfigurationError(
                f"The input of {what} has the shape {shape}, which does not fit layout "
                f"{settings.layout} with {CHANNELS} channels. Correct layout in extra, or leave it "
                "empty."
            )
        return is_first
    if shape[1] == CHANNELS and shape[3] != CHANNELS:
        return True
    if shape[3] == CHANNELS and shape[1] != CHANNELS:
        return False
    if not may_be_first and not may_be_last:
        raise ConfigurationError(
            f"The input of {what} has the shape {shape}, without a dimension of {CHANNELS} for "
            "red, green and blue. Give a model that takes RGB pictures."
        )
    raise ConfigurationError(
        f"The input of {what} has the shape {shape}, which does not tell where the {CHANNELS} "
        "channels are. Set layout in extra to NCHW or NHWC."
    )


def _size(sides: list[Any], settings: LocalModel, what: str) -> tuple[int, int]:
    given = settings.input_size
    if given is None:
        if all(isinstance(side, int) and side > 0 for side in sides):
            return sides[0], sides[1]
        raise ConfigurationError(
            f"{what} takes pictures of any size ({sides[0]} x {sides[1]}). Set input_size in extra "
            "to height and width in pixels that it was trained with, such as 224."
        )
    if any(
        isinstance(side, int) and side != asked for side, asked in zip(sides, given, strict=True)
    ):
        raise ConfigurationError(
            f"{what} takes pictures of {sides[0]} x {sides[1]} pixels, and input_size in extra is "
            f"{given[0]} x {given[1]}. Correct input_size, or leave it empty."
        )
    return given
