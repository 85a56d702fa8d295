"""Small ONNX models for tests, and a fixture with the folder that keeps the default model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a folder in which the default model is built once for all tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def local_model(model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the default model the connection ``imagetag_default``."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MODEL_CACHE_PATH", str(model_cache))
    monkeypatch.setenv(
        "AIRFLOW_CONN_IMAGETAG_DEFAULT", '{"conn_type": "imagetag", "extra": {"api": "local"}}'
    )
    return model_cache


def colour_model(
    shape: Sequence[int | str] = ("batch", 16, 16, 3),
    *,
    final: str | None = "Sigmoid",
    dtype: str = "FLOAT",
    classes: int = 3,
    metadata: dict[str, str] | None = None,
    second_output: bool = False,
    second_input: bool = False,
    gain: float = 20.0,
) -> bytes:
    """Return a model whose classes are the shares of red, green and blue in a picture.

    :param shape: of its input.
    :param final: operation that makes probabilities; None for scores.
    :param classes: further classes have the score of the first.
    :param gain: scores are ``gain`` times the mean of a channel over 0.5.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    axes = [2, 3] if shape[1] in (3, 4) else [1, 2]
    channels = shape[1] if shape[1] in (3, 4) else 3
    weight = np.zeros((int(channels), classes), np.float32)
    for number in range(classes):
        weight[number % 3, number] = gain
    bias = np.full(classes, -gain / 2, np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["scores"]),
    ]
    last = "scores"
    if final is not None:
        nodes.append(helper.make_node(final, ["scores"], ["probabilities"]))
        last = "probabilities"
    kind = TensorProto.DataType.Value(dtype)
    inputs = [helper.make_tensor_value_info("pixels", kind, list(shape))]
    if second_input:
        inputs.append(helper.make_tensor_value_info("text", TensorProto.FLOAT, [1]))
    outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, [shape[0], classes])]
    if second_output:
        outputs.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [shape[0], 3]))
    weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "colours", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


def connection(model: Path | str, /, **extra: Any) -> str:
    """Return a connection whose images the model labels, as JSON."""
    fields = {"api": "local", "model": str(model)} | extra
    return json.dumps({"conn_type": "imagetag", "extra": fields})
