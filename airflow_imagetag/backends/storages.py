"""The door to object storages: ObjectStoragePath through Airflow's connections."""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow_imagetag.errors import ConfigurationError, StorageError, UnknownConnectionError
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import scheme_of


def storage_path(uri: str, conn_id: str | None = None) -> Any:
    """Return Airflow's path object for an object-storage URI.

    :param conn_id: the storage's connection, where the URI names none.
    :raises ConfigurationError: the storage's connection or package is missing.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    # Airflow 2 takes a None for a connection, and forgets the one that the URI names.
    options = {} if conn_id is None else {"conn_id": conn_id}
    try:
        path = ObjectStoragePath(uri, **options)
        if named := connection_of(path):
            _check_connection(named)
        path.fs  # noqa: B018 (connects, and so finds out what is missing)
    except AirflowNotFoundException as error:
        raise UnknownConnectionError(f"{redact(uri)} cannot be used: {error}") from None
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"{redact(uri)} cannot be used: {error}. Install the package for {scheme_of(uri)}://, "
            "for S3 the extra [s3] of this package."
        ) from None
    return path


def connection_of(path: Any) -> str | None:
    """Return the id of the connection that a path object uses, None for none."""
    # Airflow 2 keeps it among the options, Airflow 3 in a property of its own.
    found = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
    return None if found is None else str(found)


def storage_failure(error: Exception, what: str) -> StorageError:
    """Return the error of a storage that failed in a way which may pass.

    :param error: as the storage's library raised it.
    :param what: what did not succeed, the beginning of a message.
    """
    return StorageError(f"{what}: {type(error).__name__}: {redact_text(str(error))[:300]}")


@cache
def _check_connection(conn_id: str) -> None:
    """Raise what Airflow raises for an unknown connection.

    Without it the Amazon provider takes whatever credentials the worker has of its own.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    BaseHook.get_connection(conn_id)
