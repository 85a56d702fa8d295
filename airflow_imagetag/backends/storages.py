"""Object storages: ObjectStoragePath through Airflow's connections."""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow_imagetag.errors import ConfigurationError, StorageError, UnknownConnectionError
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import scheme_of


def storage_path(uri: str, conn_id: str | None = None) -> Any:
    """Return Airflow's path object for an object-storage URI.

    :param conn_id: connection of the storage; None if the URI names one, or none is needed.
    :raises ConfigurationError: the storage's connection or package is missing.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath

    # Airflow 2 would take None instead of the connection that the URI names.
    options = {} if conn_id is None else {"conn_id": conn_id}
    try:
        path = ObjectStoragePath(uri, **options)
        if named := connection_of(path):
            _check_connection(named)
        path.fs  # noqa: B018 (connects, which fails if a package is missing)
    except AirflowNotFoundException as error:
        raise UnknownConnectionError(f"{redact(uri)} cannot be used: {error}") from None
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"{redact(uri)} cannot be used: {error}. Install the package for {scheme_of(uri)}://, "
            "for S3 the extra [s3] of this package."
        ) from None
    return path


def connection_of(path: Any) -> str | None:
    """Return the id of the connection that a path object uses; None without one."""
    # Airflow 2 keeps it among the options, Airflow 3 in a property.
    found = getattr(path, "conn_id", None) or path.storage_options.get("conn_id")
    return None if found is None else str(found)


def storage_failure(error: Exception, what: str) -> StorageError:
    """Return the error of a storage that failed, perhaps for a while.

    :param error: as the storage's library raised it.
    :param what: beginning of the message, which names the failed operation.
    """
    return StorageError(f"{what}: {type(error).__name__}: {redact_text(str(error))[:300]}")


@cache
def _check_connection(conn_id: str) -> None:
    """Raise Airflow's error for an unknown connection.

    Otherwise the Amazon provider would use the worker's own credentials.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    BaseHook.get_connection(conn_id)
