"""The number of threads and of images in flight of a local model."""

from __future__ import annotations

from typing import Final

from airflow_imagetag.classifiers.settings import LocalModel
from airflow_imagetag.runtime.cores import usable_cores

MAX_IN_FLIGHT: Final = 64

_READ_AHEAD: Final = 8
"""Images beside those of the threads, since reading one from a storage takes as long as a few."""

_IMAGES_PER_THREAD: Final = 4


def threads_of(model: LocalModel) -> int:
    """Return the number of images that are decoded or labelled at the same time."""
    return model.threads or usable_cores()


def max_images_in_flight(model: LocalModel) -> int:
    """Return the default number of images that are read, decoded or labelled at the same time."""
    return min(_READ_AHEAD + _IMAGES_PER_THREAD * threads_of(model), MAX_IN_FLIGHT)
