"""Turn the output of a model into probabilities."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy.typing as npt


class Activation(enum.Enum):
    """The function that makes probabilities of a model's output."""

    SOFTMAX = "softmax"
    """The probabilities of all classes sum to 1: an image has one label."""
    SIGMOID = "sigmoid"
    """Each class has a probability of its own: an image may have several labels."""
    NONE = "none"
    """The output holds probabilities."""


_WITHOUT_EFFECT: Final = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze"})
_FINAL: Final = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})
_MAX_STEPS: Final = 20


def activation_of(content: bytes | str, output: str) -> Activation:
    """Return the function that the output of a model needs.

    :param content: the ONNX model, or the path of its file.
    :param output: name of the output.
    :return: nothing for a model that ends with probabilities, else the softmax.
    """
    import onnx

    if isinstance(content, bytes):
        model = onnx.load_model_from_string(content)
    else:
        model = onnx.load(content, load_external_data=False)
    makers = {name: node for node in model.graph.node for name in node.output}
    for _ in range(_MAX_STEPS):
        node = makers.get(output)
        if node is None or node.op_type not in _WITHOUT_EFFECT:
            is_final = node is not None and node.op_type in _FINAL
            return Activation.NONE if is_final else Activation.SOFTMAX
        output = node.input[0]
    return Activation.SOFTMAX


def probabilities(scores: npt.NDArray[Any], activation: Activation) -> npt.NDArray[Any]:
    """Return the probabilities of the classes."""
    import numpy as np

    with np.errstate(all="ignore"):
        return _probabilities(scores, activation)


def _probabilities(scores: npt.NDArray[Any], activation: Activation) -> npt.NDArray[Any]:
    import numpy as np

    found: npt.NDArray[Any]
    match activation:
        case Activation.SOFTMAX:
            powers = np.exp(scores - scores.max())
            found = powers / powers.sum()
            return found
        case Activation.SIGMOID:
            # The exponent is bounded: beyond it, the result is 0 or 1 in any case.
            found = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
            return found
        case Activation.NONE:
            # A rounding error is no reason to refuse a picture.
            is_rounded = (scores < 0) & (scores > -1e-5) | (scores > 1) & (scores < 1 + 1e-5)
            return np.where(is_rounded, scores.clip(0, 1), scores)
