"""Find the service that the ``api`` of a connection names: ours, or one of another package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from airflow_imagetag.classifiers.settings import LOCAL_API
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.base import MAX_API_LENGTH, Service
from airflow_imagetag.services.ci.detect_label import CiDetectLabel
from airflow_imagetag.services.recognition.imagetag_detect import ImagetagDetect
from airflow_imagetag.services.recognition.picture_classify import PictureClassify
from airflow_imagetag.services.tiia.detect_label import DetectLabel, DetectLabelPro

ENTRY_POINTS = "airflow_imagetag.services"
"""Group of the entry points of other packages; the name is the ``api``, the value the class."""

BUILT_IN: Mapping[str, type[Service]] = {
    service.api: service
    for service in (PictureClassify, ImagetagDetect, DetectLabelPro, DetectLabel, CiDetectLabel)
}


def find_service(api: object) -> type[Service]:
    """Return the class of the service of this name.

    :raises ValueError: no service has the name; the message ends the sentence "api in extra ...".
    :raises ConfigurationError: another package names one that cannot be used.
    """
    # JSON may hold a list here, which no mapping can be asked for.
    if isinstance(api, str) and api in BUILT_IN:
        return BUILT_IN[api]
    others = entry_points(group=ENTRY_POINTS)
    if not isinstance(api, str) or api not in others.names:
        known = ", ".join(sorted({*BUILT_IN, *others.names, LOCAL_API}))
        raise ValueError(f"must be one of {known}, not {api!r}")
    return _load(api, others.select(name=api))


def _load(api: str, named: EntryPoints) -> type[Service]:
    # A package that is installed twice, such as in editable form, names the same class again.
    if len(values := sorted({entry.value for entry in named})) > 1:
        raise ConfigurationError(
            f"The service {api!r} is there more than once: {', '.join(values)}. Uninstall all but "
            "one of the packages."
        )
    try:
        found = next(iter(named)).load()
    # The module of another package may raise anything while it is imported.
    except Exception as error:
        raise ConfigurationError(
            f"The service {api!r} cannot be loaded from {values[0]!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if flaw := _flaw(found, api):
        raise ConfigurationError(f"The service {api!r} of {values[0]!r} {flaw}.")
    service: type[Service] = found
    return service


def _flaw(found: Any, api: str) -> str | None:
    """Return the reason why an object of another package is no service; None if it is one."""
    if not isinstance(found, type) or not issubclass(found, Service):
        return "must be a class derived from airflow_imagetag.services.Service"
    if missing := ", ".join(sorted(found.__abstractmethods__)):
        return f"lacks {missing}"
    if (named := getattr(found, "api", None)) != api:
        return f"must have the name of its entry point as its api, not {named!r}"
    if len(api) > MAX_API_LENGTH:
        return f"must have a name of up to {MAX_API_LENGTH} characters"
    if not isinstance(getattr(found, "host", None), str):
        return "must have a host"
    return None
