"""Object storages through Airflow's connections."""

from __future__ import annotations

import itertools
import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from airflow_imagetag.backends.storage_faults import Fault, diagnose
from airflow_imagetag.errors import (
    StorageAccessError,
    StorageError,
    UnknownConnectionError,
)
from airflow_imagetag.safety.redaction import has_password, redact, redact_text
from airflow_imagetag.safety.uris import scheme_of

SYNONYMS = {"az": "abfs", "wasb": "abfs", "wasbs": "abfs"}
"""Schemes of Azure that Airflow's provider does not know, with the one that it does."""

GOOGLE = frozenset({"gcs", "gs"})
"""Schemes of Google Cloud Storage."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage that is connected.

    :param file_system: one of fsspec's.
    :param path: the bucket, as the file system names it.
    :param conn_id: the connection; None without one.
    """

    file_system: Any
    path: str
    conn_id: str | None


def connect(uri: str, conn_id: str | None = None, *, max_age: float = 0) -> Storage:
    """Return the storage of a URI through Airflow's connection, whose keys may have changed.

    :param uri: of a bucket or container, without the name of an object.
    :param conn_id: connection of the storage; None if the URI names one, or none is needed.
    :param max_age: number of seconds in which the connection is not read again.
    :raises ConfigurationError: the storage's connection or package is missing, or cannot be used.
    :raises StorageError: the storage failed, perhaps for a while.
    """
    from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, ObjectStoragePath

    if has_password(uri):
        raise StorageAccessError(
            f"{redact(uri)} names a user with a password. Name an Airflow connection in their "
            "place, such as s3://my_s3@bucket."
        )
    # Airflow 2 would take None instead of the connection that the URI names.
    options = {} if conn_id is None else {"conn_id": conn_id}
    try:
        path = ObjectStoragePath(_known(uri), **options)
        named = _connection_of(path)
        # Without a connection the storage's library finds, and renews, the worker's credentials.
        file_system = path.fs if named is None else _file_system(path.protocol, named, max_age)
        return Storage(file_system, path.path.rstrip("/"), named)
    except AirflowNotFoundException as error:
        raise UnknownConnectionError(f"{redact(uri)} cannot be used: {error}") from None
    except (ImportError, ValueError) as error:
        raise StorageAccessError(
            f"{redact(uri)} cannot be used: {redact_text(str(error))}. Install the package for "
            f"{scheme_of(uri)}://, for S3 the extra [s3] of this package."
        ) from None
    # Each provider and each storage's library has errors of its own.
    except Exception as error:
        reason = f"{type(error).__name__}: {redact_text(str(error))[:300]}"
        if diagnose(error).fault is Fault.MOMENT:
            raise StorageError(f"{redact(uri)} cannot be used: {reason}") from None
        raise StorageAccessError(
            f"{redact(uri)} cannot be used: {reason}. Check the storage's connection."
        ) from None


def _known(uri: str) -> str:
    """Return a URI with a scheme that Airflow's providers know."""
    scheme = scheme_of(uri)
    return f"{SYNONYMS[scheme]}{uri[len(scheme) :]}" if scheme in SYNONYMS else uri


def _connection_of(path: Any) -> str | None:
    """Return the id of the connection that a path object uses; None without one."""
    # Airflow 2 keeps it among the options, Airflow 3 in a property.
    found = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
    return None if found is None else str(found)


@dataclass(slots=True)
class _Kept:
    """A storage of this process, as its connection was when it was last read.

    Airflow keeps storages as well, but for as long as the process lives: a triggerer would use the
    keys of its first look for ever.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    fields: tuple[object, ...] = ()
    store: Any = None
    read_at: float = -math.inf


_KEPT: dict[tuple[str, str], _Kept] = {}
"""By scheme and connection."""

_NUMBERS = itertools.count()


def _file_system(scheme: str, conn_id: str, max_age: float) -> Any:
    """Return the file system of a connection as it is now."""
    from airflow_imagetag.adapters.airflow_sdk import BaseHook

    kept = _KEPT.setdefault((scheme, conn_id), _Kept())
    with kept.lock:
        now = time.monotonic()
        if now - kept.read_at >= max_age:
            # For an unknown one the Amazon provider would use the worker's own credentials.
            found = BaseHook.get_connection(conn_id)
            account = (found.conn_type, found.host, found.port, found.schema, found.extra)
            fields = (*account, found.login, found.password)
            if fields != kept.fields:
                kept.store, kept.fields = _attach(scheme, conn_id), fields
            kept.read_at = now
        return kept.store.fs


def _attach(scheme: str, conn_id: str) -> Any:
    # An alias that Airflow does not know yet makes a new store.
    alias = f"imagetag-{scheme}-{conn_id}-{next(_NUMBERS)}"
    try:
        from airflow.sdk.io import attach
    except ImportError:  # Airflow 2
        from airflow.io.store import attach  # type: ignore[no-redef]
    store = attach(scheme, conn_id, alias)
    if scheme in GOOGLE:
        # The library would ask for a token for half a minute, for each request, if it is refused.
        store.fs.credentials.maybe_refresh()
    return store
