"""Import path of version 0.1.0; new code imports from ``airflow_imagetag.services``."""

from airflow_imagetag.services.base import MAX_API_LENGTH, Limits, Service
from airflow_imagetag.services.messages import (
    HttpResponse,
    ParsedLabels,
    Payload,
    Request,
    most_probable_first,
)

__all__ = [
    "MAX_API_LENGTH",
    "Answer",
    "Limits",
    "Payload",
    "Reading",
    "Request",
    "Service",
    "most_probable_first",
]

Answer = HttpResponse
"""Name of ``HttpResponse`` in version 0.1.0."""

Reading = ParsedLabels
"""Name of ``ParsedLabels`` in version 0.1.0."""
