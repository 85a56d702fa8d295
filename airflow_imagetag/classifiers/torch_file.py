"""Read the tensors of a PyTorch file without PyTorch, and without running code of its pickle.

The file is of PyTorch's older form: five pickles (a magic number, the version of the form, facts of
the machine, the tensors, the keys of their storages), then for each key an int64 with the number of
elements and the elements themselves.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    import numpy.typing as npt

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001

_DTYPES: Final = {"FloatStorage": "<f4", "LongStorage": "<i8"}
"""Types of the elements that are read, as NumPy names them."""


class UnsafeFileError(ValueError):
    """The file holds something other than tensors, or is damaged."""


@dataclass(frozen=True, slots=True)
class _Storage:
    """A reference to the elements of one or more tensors."""

    dtype: str
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: a window on a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of the file by their names.

    :param content: the whole file.
    :raises UnsafeFileError: a pickle names anything but tensors, or the file is damaged.
    """
    file = BytesIO(content)
    try:
        return _read(file)
    except UnsafeFileError:
        raise
    # A damaged pickle raises errors of many classes.
    except Exception as error:
        raise UnsafeFileError(f"it is damaged ({type(error).__name__}: {error})") from None


def _read(file: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    if _unpickle(file) != _MAGIC or _unpickle(file) != _VERSION:
        raise UnsafeFileError("it does not have the form of PyTorch's older files")
    facts = _unpickle(file)
    if not isinstance(facts, Mapping) or facts.get("little_endian") is not True:
        raise UnsafeFileError("it was written by a machine of another byte order")
    views, keys = _unpickle(file), _unpickle(file)
    if not isinstance(views, Mapping) or not all(isinstance(v, _View) for v in views.values()):
        raise UnsafeFileError("it holds something other than tensors")
    storages = {view.storage.key: view.storage for view in views.values()}
    data = {key: _elements(file, storages[key]) for key in keys}
    return {str(name): _tensor(view, data[view.storage.key]) for name, view in views.items()}


def _elements(file: BinaryIO, storage: _Storage) -> npt.NDArray[Any]:
    import numpy as np

    (count,) = struct.unpack("<q", file.read(8))
    if count != storage.elements:
        raise UnsafeFileError(f"a tensor has {count} elements instead of {storage.elements}")
    dtype = np.dtype(storage.dtype)
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)


def _tensor(view: _View, elements: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous copy of the window; its last element must lie inside the storage."""
    import numpy as np

    if min((view.offset, *view.shape, *view.strides), default=0) < 0:
        raise UnsafeFileError("a tensor has a negative size")
    last = sum((n - 1) * step for n, step in zip(view.shape, view.strides, strict=True))
    if 0 not in view.shape and view.offset + last >= len(elements):
        raise UnsafeFileError("a tensor reaches beyond its elements")
    steps = tuple(step * elements.itemsize for step in view.strides)
    window = np.lib.stride_tricks.as_strided(
        elements[view.offset :], view.shape, steps, writeable=False
    )
    return np.ascontiguousarray(window).reshape(view.shape)


def _unpickle(file: BinaryIO) -> Any:
    return _Unpickler(file).load()


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _View:
    """Stand in for the function that rebuilds a tensor; calls nothing."""
    del rest
    if not isinstance(storage, _Storage):
        raise UnsafeFileError("a tensor has no elements")
    return _View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Unpickler(pickle.Unpickler):
    """Loads numbers, texts, containers and the four names that a file of tensors needs."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the substitute of a global; refuse every other one.

        :raises UnsafeFileError: the global does not belong to a file of tensors.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in _DTYPES:
            return name
        raise UnsafeFileError(f"it names {module}.{name}, which does not belong to tensors")

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a persistent id describes.

        :raises UnsafeFileError: it describes something else.
        """
        match pid:
            case ("storage", str(name), str(key), _, int(elements), None) if name in _DTYPES:
                return _Storage(_DTYPES[name], key, elements)
        raise UnsafeFileError("it refers to something other than the elements of a tensor")
