"""Whose fault the error of a storage is, for each class and code of the storages' libraries."""

from __future__ import annotations

import errno
import inspect
import os
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from airflow_imagetag.backends.storage_faults import CLASSES, CODES, Diagnosis, Fault, diagnose


def answer(code: str, status: int) -> Exception:
    """Return an error as s3fs raises it for an answer of S3."""
    error = ClientError(
        {
            "Error": {"Code": code, "Message": "told"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        "GetObject",
    )
    translated: Exception = translate_boto_error(error)
    return translated


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("AccessDenied", 403, Fault.REFUSED),
        ("ExpiredToken", 400, Fault.WORKER),
        ("ExpiredToken", 403, Fault.WORKER),
        ("InvalidAccessKeyId", 403, Fault.WORKER),
        ("SignatureDoesNotMatch", 403, Fault.WORKER),
        ("RequestTimeTooSkewed", 403, Fault.WORKER),
        ("NoSuchBucket", 404, Fault.WORKER),
        ("InvalidObjectState", 403, Fault.OBJECT),
        ("NoSuchKey", 404, Fault.OBJECT),
        ("404", 404, Fault.OBJECT),
        ("MethodNotAllowed", 405, Fault.OBJECT),
        ("SlowDown", 503, Fault.MOMENT),
        ("InternalError", 500, Fault.MOMENT),
        ("503", 503, Fault.MOMENT),
        ("KMS.DisabledException", 400, Fault.OBJECT),
        ("NeverHeardOf", 400, Fault.OBJECT),
        ("NeverHeardOf", 500, Fault.MOMENT),
    ],
)
def test_answers_of_s3(code: str, status: int, fault: Fault):
    """By the code, and by the status for a code that is not known."""
    assert diagnose(answer(code, status)).fault is fault


def test_the_reason_is_the_code():
    """A message names it."""
    assert diagnose(answer("ExpiredToken", 400)) == Diagnosis(Fault.WORKER, "ExpiredToken")


def errors_of_botocore() -> Iterator[type[Exception]]:
    """Yield the errors of botocore that stand for no answer."""
    kind: Any
    for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass):
        bases = (botocore.exceptions.BotoCoreError, botocore.exceptions.HTTPClientError)
        if issubclass(kind, Exception) and issubclass(kind, bases):
            yield kind


@pytest.mark.parametrize("kind", list(errors_of_botocore()), ids=lambda kind: kind.__name__)
def test_every_error_of_botocore_has_its_place(kind: type[Exception]):
    """None falls to the default; those of the connection may pass."""
    made = kind.__new__(kind)
    names = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in kind.__mro__}
    assert any(names & known for known in CLASSES.values())
    may_pass = {
        "ConnectionClosedError",
        "ConnectionError",
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseStreamingError",
    }
    if kind.__name__ in may_pass:
        assert diagnose(made).fault is Fault.MOMENT
    if "Credential" in kind.__name__ or "SSO" in kind.__name__ or "Profile" in kind.__name__:
        assert diagnose(made).fault is Fault.WORKER


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for _, kind in inspect.getmembers(aiohttp, inspect.isclass)
        if issubclass(kind, aiohttp.ClientError) and not issubclass(kind, ValueError)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_aiohttp_may_pass(kind: type[Exception]):
    """All but a certificate that is not trusted."""
    expected = Fault.WORKER if issubclass(kind, ssl.CertificateError) else Fault.MOMENT
    assert diagnose(kind.__new__(kind)).fault is expected


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_number_has_a_meaning(number: int):
    """A missing file is the object's fault, a full disk the worker's."""
    named = {
        errno.ENOENT: Fault.OBJECT,
        errno.ENOTDIR: Fault.OBJECT,
        errno.EISDIR: Fault.OBJECT,
        errno.ENAMETOOLONG: Fault.OBJECT,
        errno.ELOOP: Fault.OBJECT,
        errno.EACCES: Fault.REFUSED,
        errno.EPERM: Fault.REFUSED,
        errno.ENOSPC: Fault.WORKER,
        errno.EMFILE: Fault.WORKER,
        errno.EIO: Fault.MOMENT,
        errno.ESTALE: Fault.MOMENT,
        errno.ECONNRESET: Fault.MOMENT,
        errno.ETIMEDOUT: Fault.MOMENT,
    }
    found = diagnose(OSError(number, os.strerror(number))).fault
    assert found is named.get(number, found)


def foreign(module: str, *names: str, **attributes: Any) -> Exception:
    """Return an error of a class with these names, the last one its base."""
    kind: type[Exception] = Exception
    for name in reversed(names):
        kind = type(name, (kind,), {"__module__": module})
    made = kind("told")
    made.__dict__.update(attributes)
    return made


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (foreign("azure.core.exceptions", "ClientAuthenticationError"), Fault.WORKER),
        (
            foreign(
                "azure.core.exceptions",
                "HttpResponseError",
                error_code="BlobNotFound",
                status_code=404,
            ),
            Fault.OBJECT,
        ),
        (
            foreign(
                "azure.core.exceptions",
                "ClientAuthenticationError",
                status_code=403,
                error_code="AuthorizationPermissionMismatch",
            ),
            Fault.REFUSED,
        ),
        (foreign("azure.core.exceptions", "ServiceRequestError"), Fault.MOMENT),
        (foreign("azure.identity", "CredentialUnavailableError"), Fault.WORKER),
        (foreign("google.auth.exceptions", "RefreshError", "GoogleAuthError"), Fault.WORKER),
        (foreign("google.auth.exceptions", "TransportError", "GoogleAuthError"), Fault.MOMENT),
        (foreign("gcsfs.retry", "HttpError", code=401), Fault.WORKER),
        (foreign("gcsfs.retry", "HttpError", code=403), Fault.REFUSED),
        (foreign("gcsfs.retry", "HttpError", code=429), Fault.MOMENT),
        (foreign("gcsfs.retry", "HttpError", code=404), Fault.OBJECT),
        (foreign("airflow.exceptions", "AirflowException"), Fault.WORKER),
        (ImportError("no such package"), Fault.WORKER),
        (TimeoutError(), Fault.MOMENT),
        (FileNotFoundError("gone"), Fault.OBJECT),
        (PermissionError("no"), Fault.REFUSED),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), Fault.OBJECT),
        (ZeroDivisionError(), Fault.OBJECT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_other_storages(error: Exception, fault: Fault):
    """By code, status, error number or class."""
    assert diagnose(error).fault is fault


def test_the_cause_of_a_translated_error_counts():
    """A library may raise an error of its own from that of another one."""
    error = OSError("translated")
    error.__cause__ = answer("ExpiredToken", 400)
    assert diagnose(error).fault is Fault.WORKER


def test_no_code_has_two_meanings():
    """Each is in one list."""
    codes = [code for known in CODES.values() for code in known]
    assert len(codes) == len(set(codes))
