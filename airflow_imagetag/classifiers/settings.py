"""The settings of a local model, as a connection gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final, TypeVar

from airflow_imagetag.adapters.numbers import NumberRule

T = TypeVar("T")

LOCAL_API: Final = "local"
"""The ``api`` of a connection whose images a model in the worker labels."""

DEFAULT_PROVIDERS: Final = ("CPUExecutionProvider",)

DEFAULT_MIN_PROBABILITY: Final = 0.1
"""Minimum probability of a label: below it, the labels of photographs outside the model's classes
are noise. Measured on the photographs of scikit-image."""

DEFAULT_TOP_K: Final = 5

DEFAULT_CROP: Final = 0.875
"""Share of the shorter side that the picture is cropped to, around its centre."""

LAYOUTS: Final = ("NCHW", "NHWC")
ACTIVATIONS: Final = ("softmax", "sigmoid", "none")

MAX_SIDE_PIXELS: Final = 4_096
"""Maximum width and height of a model's input."""

_THREADS: Final = NumberRule("a whole number from 1 to 256", minimum=1, maximum=256, is_whole=True)
_SIDE: Final = NumberRule(
    f"a number of pixels from 1 to {MAX_SIDE_PIXELS:,}",
    minimum=1,
    maximum=MAX_SIDE_PIXELS,
    is_whole=True,
)
_SHARE: Final = NumberRule("a share above 0 and up to 1", above=0, maximum=1)
_PROBABILITY: Final = NumberRule("a number from 0 to 1", minimum=0, maximum=1)
_TOP_K: Final = NumberRule("a whole number from 1 to 100", minimum=1, maximum=100, is_whole=True)
_NUMBER: Final = NumberRule("a number")
_DEVIATION: Final = NumberRule("a number above 0", above=0)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model, and how it sees pictures.

    :param model: path or URI of an ONNX file; None for EfficientNet-Lite0.
    :param classes: path or URI of the names of its classes, or ``imagenet-1k``; None for the names
        that the model holds.
    :param threads: number of images that are decoded or labelled at the same time; None for the
        cores of the worker.
    :param providers: execution providers of ONNX Runtime, the preferred one first.
    :param layout: order of the input's dimensions, ``NCHW`` or ``NHWC``; None reads it from the
        model.
    :param input_size: height and width of the input in pixels; None reads them from the model.
    :param mean: mean of each channel that is subtracted, where white is 1; None for ImageNet's.
    :param std: deviation of each channel that is divided by; likewise.
    :param crop: share of the shorter side that the picture is cropped to, around its centre.
    :param activation: what makes probabilities of the output: ``softmax``, ``sigmoid`` or ``none``;
        None reads it from the model, and takes ``softmax`` for one that ends without any.
    :param output: name of the model's output; None for its only one.
    :param min_probability: labels below it are left out.
    :param top_k: maximum number of labels of an image.
    """

    # A URL may hold a password.
    model: str | None = field(default=None, repr=False)
    classes: str | None = field(default=None, repr=False)
    threads: int | None = None
    providers: tuple[str, ...] = DEFAULT_PROVIDERS
    layout: str | None = None
    input_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float = DEFAULT_CROP
    activation: str | None = None
    output: str | None = None
    min_probability: float = DEFAULT_MIN_PROBABILITY
    top_k: int = DEFAULT_TOP_K

    @property
    def view(self) -> Mapping[str, Any]:
        """The settings on which the labels of a picture depend, beside the files."""
        names = ("layout", "input_size", "mean", "std", "crop", "activation", "output")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


LOCAL_NAMES: Final = frozenset(each.name for each in fields(LocalModel))
"""Names of the connection's extra that describe a local model."""


def parse_local_model(optional: Callable[[str, Callable[[Any], Any], Any], Any]) -> LocalModel:
    """Return the model that the extra of a connection describes.

    :param optional: returns the parsed value of a name of the extra, or a default where it has
        none: ``optional(name, parse, default)``. It turns errors into those of the connection.
    :raises ConfigurationError: a value is wrong.
    """

    def number(name: str, rule: NumberRule, default: T) -> float | T:
        found = optional(name, partial(rule.parse, f"{name} in extra"), None)
        return default if found is None else found

    def whole(name: str, rule: NumberRule, default: T) -> int | T:
        found = optional(name, partial(rule.parse_whole, f"{name} in extra"), None)
        return default if found is None else found

    model = LocalModel(
        model=optional("model", _location, None),
        classes=optional("classes", _location, None),
        threads=whole("threads", _THREADS, None),
        providers=optional("providers", _provider_names, DEFAULT_PROVIDERS),
        layout=optional("layout", partial(_one_of, LAYOUTS), None),
        input_size=optional("input_size", _size, None),
        mean=optional("mean", partial(_channels, _NUMBER), None),
        std=optional("std", partial(_channels, _DEVIATION), None),
        crop=number("crop", _SHARE, DEFAULT_CROP),
        activation=optional("activation", partial(_one_of, ACTIVATIONS), None),
        output=optional("output", _location, None),
        min_probability=number("min_probability", _PROBABILITY, DEFAULT_MIN_PROBABILITY),
        top_k=whole("top_k", _TOP_K, DEFAULT_TOP_K),
    )
    if model.model is None:
        for name in ("classes", "layout", "input_size", "mean", "std", "activation", "output"):
            optional(name, _needs_model, None)
    return model


def _needs_model(value: Any) -> None:
    raise ValueError(
        f"is {value!r}, and model in extra is missing: it describes a model of your own. Set "
        "model, or leave it empty"
    )


def _location(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"must be a text, not {value!r}")
    return value.strip()


def _one_of(names: tuple[str, ...], value: Any) -> str:
    found = {name.lower(): name for name in names}.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"must be one of {', '.join(names)}, not {value!r}")
    return found


def _provider_names(value: Any) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "must be a list of names of ONNX Runtime, or names with commas, such as "
            f"CUDAExecutionProvider,CPUExecutionProvider, not {value!r}"
        )
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def _size(value: Any) -> tuple[int, int]:
    """Return height and width of a number, a list of two, or a text such as ``192x256``."""
    sides = _listed(value, separator="x")
    if len(sides) not in (1, 2):
        raise ValueError(f"must be a number of pixels, or height and width, not {value!r}")
    height, width = (
        _SIDE.require_whole("input_size in extra", side) for side in (sides[0], sides[-1])
    )
    return height, width


def _channels(rule: NumberRule, value: Any) -> tuple[float, ...]:
    values = _listed(value, separator=",")
    if len(values) != 3:
        raise ValueError(f"must be three numbers, for red, green and blue, not {value!r}")
    return tuple(rule.require("each of them", each) for each in values)


def _listed(value: Any, *, separator: str) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            # A form of Airflow keeps a list as text.
            try:
                value = json.loads(text)
            except ValueError:
                raise ValueError(f"is no list: {text!r}") from None
        else:
            return [part.strip() for part in text.lower().split(separator)]
    return list(value) if isinstance(value, (list, tuple)) else [value]
