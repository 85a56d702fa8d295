"""The functions of ``response_parsing``, with names and parameters of version 0.1.0.

New code imports ``response_parsing`` from ``airflow_imagetag.services``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_imagetag.errors import ImageTagError, MalformedAnswerError
from airflow_imagetag.services import HttpResponse, response_parsing
from airflow_imagetag.services.response_parsing import ErrorMeaning

__all__ = [
    "Meaning",
    "error",
    "json_object",
    "label_name",
    "malformed",
    "probability",
    "status_error",
    "text",
]

Meaning = ErrorMeaning
"""Name of ``ErrorMeaning`` in version 0.1.0."""


def malformed(answer: HttpResponse, why: str) -> MalformedAnswerError:
    """Return the same as ``response_parsing.malformed``."""
    return response_parsing.malformed(answer, why)


def probability(answer: HttpResponse, value: Any, scale: float = 1.0) -> float:
    """Return the same as ``response_parsing.probability``."""
    return response_parsing.probability(answer, value, scale)


def label_name(answer: HttpResponse, value: Any) -> str:
    """Return the same as ``response_parsing.label_name``."""
    return response_parsing.label_name(answer, value)


def text(answer: HttpResponse, value: Any, what: str) -> str:
    """Return the same as ``response_parsing.text``."""
    return response_parsing.text(answer, value, what)


def json_object(answer: HttpResponse) -> Mapping[str, Any] | None:
    """Return the same as ``response_parsing.json_object``."""
    return response_parsing.json_object(answer)


def status_error(answer: HttpResponse, document: Mapping[str, Any] | None) -> ImageTagError:
    """Return the same as ``response_parsing.status_error``."""
    return response_parsing.status_error(answer, document)


def error(
    meaning: ErrorMeaning, answer: HttpResponse, code: str, said: Any, call: str | None = None
) -> ImageTagError:
    """Return the same as ``response_parsing.error``."""
    return response_parsing.error(meaning, answer, code, said, call)
