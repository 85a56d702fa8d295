"""Labels of the local model, for an emulator that recognizes what a photograph shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_imagetag.classifiers.cache import DigestCache, default_folder
from airflow_imagetag.classifiers.default_model import default_classifier
from airflow_imagetag.classifiers.settings import DEFAULT_MIN_PROBABILITY, LocalModel
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.runtime.cores import usable_cores
from airflow_imagetag.testing._labels import CachedRecognizer, decode

if TYPE_CHECKING:
    from airflow_imagetag.testing._api import Labels

_MAX_SIDE: Final = 896
"""Maximum side of the picture that the model's input is cut from."""


def model_recognizer() -> CachedRecognizer:
    """Return a recognizer that asks the local model.

    :raises ModuleNotFoundError: the extra ``local`` is not installed.
    """
    try:
        # An answer of the service has at least one label, so none is left out here.
        classifier = default_classifier(
            LocalModel(min_probability=0.0), DigestCache(default_folder())
        )
    except ConfigurationError as error:
        raise ModuleNotFoundError(error.message) from error

    def label(data: bytes) -> Labels:
        picture = classifier.view.cropped(decode(data, _MAX_SIDE))
        found = [(each.name, each.probability) for each in classifier.labels(picture)]
        likely = [each for each in found if each[1] >= DEFAULT_MIN_PROBABILITY]
        return likely or found[:1]

    return CachedRecognizer(label, usable_cores())
