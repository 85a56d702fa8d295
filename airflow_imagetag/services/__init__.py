"""Public: write a service of another label vendor.

A service builds requests, reads responses and classifies errors, without I/O and without Airflow.
"""

from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits, Service
from airflow_imagetag.services.messages import (
    HttpResponse,
    ParsedLabels,
    Payload,
    Request,
    most_probable_first,
)
from airflow_imagetag.services.registry import find_service

__all__ = [
    "Account",
    "HttpResponse",
    "Limits",
    "ParsedLabels",
    "Payload",
    "Request",
    "Service",
    "find_service",
    "most_probable_first",
    "response_parsing",
]
