"""Build EfficientNet-Lite0 as an ONNX graph from the weights of its PyTorch file.

The graph takes pictures of 8 bits, in rows of RGB pixels, and gives probabilities: what happens to
the pixels before the first layer is part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy.typing as npt

SIZE: Final = 224
"""Width and height of the picture, in pixels."""

CLASSES: Final = 1_000

_MEAN: Final = 127.0
_SCALE: Final = 1 / 128.0
_EPSILON: Final = 1e-3
"""Added to the variance by batch normalization."""

_OPSET: Final = 17
_IR_VERSION: Final = 8

_BLOCKS: Final = 16
_HALVING_BLOCKS: Final = frozenset({1, 3, 5, 11})
"""Blocks that halve width and height."""

Tensors = Mapping[str, "npt.NDArray[Any]"]


def build_graph(tensors: Tensors) -> bytes:
    """Return the network as a serialized ONNX model.

    :param tensors: the weights by their names in the PyTorch file.
    :raises KeyError: a weight is missing.
    :raises ModuleNotFoundError: the package onnx is not installed.
    """
    graph = _Graph(tensors)
    at = graph.pixels()
    at, size = graph.convolution(at, "_conv_stem", "_bn0", size=SIZE, stride=2, is_clipped=True)
    for number in range(_BLOCKS):
        at, size = graph.block(at, number, size)
    at, size = graph.convolution(at, "_conv_head", "_bn1", size=size, is_clipped=True)
    graph.classify(at)
    return graph.serialized()


class _Graph:
    """Collects the nodes and weights of the graph."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def pixels(self) -> str:
        """Add the way from pixels of 8 bits to the input of the first layer."""
        import numpy as np

        at = self._add("Transpose", "pixels", perm=[0, 3, 1, 2])
        at = self._add("Cast", at, to=1)
        at = self._add("Sub", at, self._weight("mean", np.array(_MEAN, np.float32)))
        return self._add("Mul", at, self._weight("scale", np.array(_SCALE, np.float32)))

    def block(self, at: str, number: int, size: int) -> tuple[str, int]:
        """Add an inverted bottleneck: wider, filtered in each channel, narrower again."""
        name = f"_blocks.{number}"
        entry = at
        if f"{name}._expand_conv.weight" in self._tensors:
            at, _ = self.convolution(
                at, f"{name}._expand_conv", f"{name}._bn0", size=size, is_clipped=True
            )
        stride = 2 if number in _HALVING_BLOCKS else 1
        at, inner_size = self.convolution(
            at,
            f"{name}._depthwise_conv",
            f"{name}._bn1",
            size=size,
            stride=stride,
            is_depthwise=True,
            is_clipped=True,
        )
        projection = self._tensors[f"{name}._project_conv.weight"]
        at, inner_size = self.convolution(
            at, f"{name}._project_conv", f"{name}._bn2", size=inner_size
        )
        if stride == 1 and self._entry_channels(name) == projection.shape[0]:
            at = self._add("Add", at, entry)
        return at, inner_size

    def _entry_channels(self, name: str) -> int:
        expand = self._tensors.get(f"{name}._expand_conv.weight")
        if expand is not None:
            return int(expand.shape[1])
        return int(self._tensors[f"{name}._depthwise_conv.weight"].shape[0])

    def convolution(
        self,
        at: str,
        name: str,
        normalization: str,
        *,
        size: int,
        stride: int = 1,
        is_depthwise: bool = False,
        is_clipped: bool = False,
    ) -> tuple[str, int]:
        """Add a convolution with its batch normalization folded in.

        :param size: width and height of its input, in pixels.
        :param is_clipped: its output is clipped to 0..6.
        :return: the name of the output, and its width and height.
        """
        import numpy as np

        kernel = self._tensors[f"{name}.weight"].astype(np.float64)
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (
            self._tensors[f"{normalization}.{part}"].astype(np.float64) for part in parts
        )
        factor = gamma / np.sqrt(variance + _EPSILON)
        weight = (kernel * factor[:, None, None, None]).astype(np.float32)
        bias = (beta - mean * factor).astype(np.float32)
        side = kernel.shape[2]
        out_size = -(-size // stride)
        # As TensorFlow pads: a pixel more at the end where the sum is odd.
        total = max((out_size - 1) * stride + side - size, 0)
        before, after = total // 2, total - total // 2
        out = self._add(
            "Conv",
            at,
            self._weight(f"{name}.weight", weight),
            self._weight(f"{name}.bias", bias),
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=int(kernel.shape[0]) if is_depthwise else 1,
        )
        return (self._clipped(out) if is_clipped else out), out_size

    def _clipped(self, at: str) -> str:
        import numpy as np

        names = {weight.name for weight in self._weights}
        if "zero" not in names:
            self._weight("zero", np.array(0, np.float32))
            self._weight("six", np.array(6, np.float32))
        return self._add("Clip", at, "zero", "six")

    def classify(self, at: str) -> None:
        """Add the mean over the picture, the last layer and the probabilities."""
        at = self._add("GlobalAveragePool", at)
        at = self._add("Flatten", at, axis=1)
        weight = self._weight("_fc.weight", self._tensors["_fc.weight"])
        bias = self._weight("_fc.bias", self._tensors["_fc.bias"])
        at = self._add("Gemm", at, weight, bias, transB=1)
        self._add("Softmax", at, out="probabilities", axis=1)

    def serialized(self) -> bytes:
        """Return the model, after a check of its form."""
        import onnx
        from onnx import TensorProto, helper

        pixels = helper.make_tensor_value_info(
            "pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3]
        )
        probabilities = helper.make_tensor_value_info(
            "probabilities", TensorProto.FLOAT, ["batch", CLASSES]
        )
        graph = helper.make_graph(
            self._nodes, "efficientnet-lite0", [pixels], [probabilities], self._weights
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="airflow-provider-imagetag",
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _add(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = out or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _weight(self, name: str, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._weights.append(numpy_helper.from_array(values, name))
        return name
