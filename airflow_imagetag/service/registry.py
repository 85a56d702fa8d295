"""The interfaces that the ``api`` of a connection can name: ours, and those of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.service.base import Service
from airflow_imagetag.service.imagetag_detect import ImagetagDetect
from airflow_imagetag.service.picture_classify import PictureClassify
from airflow_imagetag.service.tiia import DetectLabel, DetectLabelPro

ENTRY_POINTS = "airflow_imagetag.services"
"""Group in which another package names a service: the name is its ``api``, the value its class."""

BUILT_IN: Mapping[str, type[Service]] = {
    service.api: service
    for service in (PictureClassify, ImagetagDetect, DetectLabelPro, DetectLabel)
}


def find_service(api: object) -> type[Service]:
    """Return the service of this name.

    :raises ValueError: there is none; the message ends the sentence "api in extra".
    :raises ConfigurationError: another package names one that cannot be used.
    """
    # JSON may hold a list here, which no mapping can be asked for.
    if isinstance(api, str) and api in BUILT_IN:
        return BUILT_IN[api]
    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if not isinstance(api, str) or api not in others:
        known = ", ".join(sorted({*BUILT_IN, *others}))
        raise ValueError(f"must be one of {known}, not {api!r}")
    return _load(others[api])


def _load(entry: EntryPoint) -> type[Service]:
    try:
        found = entry.load()
    # Whatever a module of others raises while it is imported.
    except Exception as error:
        raise ConfigurationError(
            f"The service {entry.name!r} cannot be loaded from {entry.value!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    is_service = isinstance(found, type) and issubclass(found, Service)
    if not is_service or getattr(found, "api", None) != entry.name:
        raise ConfigurationError(
            f"The service {entry.name!r} must be a class derived from "
            f"airflow_imagetag.service.base.Service whose api is {entry.name!r}; "
            f"{entry.value!r} is not."
        )
    service: type[Service] = found
    return service
