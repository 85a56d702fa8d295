"""The storage connections that URIs from data may use."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from airflow_imagetag.errors import (
    ImageNotAllowedError,
    ImageTagError,
    StorageAccessError,
    UnknownConnectionError,
)
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import scheme_of

CONNECTION_TYPES = {
    "s3": frozenset({"aws", "s3"}),
    "s3a": frozenset({"aws", "s3"}),
    "s3n": frozenset({"aws", "s3"}),
    "gs": frozenset({"google_cloud_platform"}),
    "gcs": frozenset({"google_cloud_platform"}),
    "abfs": frozenset({"adls", "azure_data_lake", "wasb"}),
    "abfss": frozenset({"adls", "azure_data_lake", "wasb"}),
    "adl": frozenset({"adls", "azure_data_lake", "wasb"}),
    "az": frozenset({"adls", "azure_data_lake", "wasb"}),
    "wasb": frozenset({"adls", "azure_data_lake", "wasb"}),
    "wasbs": frozenset({"adls", "azure_data_lake", "wasb"}),
    "oss": frozenset({"oss"}),
    "hdfs": frozenset({"hdfs", "webhdfs"}),
    "webhdfs": frozenset({"hdfs", "webhdfs"}),
}
"""Types of the connections that data may name in URIs of each scheme."""


MAX_CONNECTION_AGE = 30.0
"""Number of seconds in which a storage's connection is not read again: reading it takes a query."""


@dataclass(slots=True)
class _ReadType:
    """The type of a connection when it was last read."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    conn_type: str | None = None
    read_at: float = -math.inf


class ConnectionTypes:
    """Types of connections; each is read again when it is older than ``MAX_CONNECTION_AGE``.

    A connection that cannot be read is not remembered.

    :param clock: seconds that never go backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read: dict[str, _ReadType] = {}

    def type_of(self, conn_id: str) -> str | None:
        """Return the type of a connection.

        :raises UnknownConnectionError: there is no such connection.
        :raises StorageAccessError: it cannot be read.
        """
        read = self._read.setdefault(conn_id, _ReadType())
        with read.lock:
            now = self._clock()
            if now - read.read_at >= MAX_CONNECTION_AGE:
                read.conn_type, read.read_at = self._read_or_forget(conn_id), now
            return read.conn_type

    def _read_or_forget(self, conn_id: str) -> str | None:
        try:
            return _read_type(conn_id)
        except ImageTagError:
            # Data may name any number of connections that do not exist.
            self._read.pop(conn_id, None)
            raise


@dataclass(frozen=True, slots=True)
class ConnectionPolicy:
    """The connections that URIs from data may use.

    :param only: the one connection, which a URI that names none uses, too; None for no such one.
    :param allowed: ids of the connections that a URI may name; None for all of the storage's type.
    :param types: the types of the connections that were checked.
    """

    only: str | None = None
    allowed: Collection[str] | None = None
    types: ConnectionTypes = field(default_factory=ConnectionTypes, repr=False, compare=False)

    def check(self, uri: str) -> str | None:
        """Return the connection to read a URI with; None if it names its own, or needs none.

        A connection of another type, such as a database's, would send its login and password to
        the bucket that the data names.

        :raises ImageNotAllowedError: the URI names a connection that it may not.
        :raises UnknownConnectionError: there is no such connection.
        """
        named = connection_in(uri)
        if self.only is not None:
            if named not in (None, self.only):
                raise ImageNotAllowedError(
                    f"{redact(uri)} names the connection {named!r}, and this task reads images "
                    f"from data with storage_conn_id={self.only!r} only."
                )
            self._check_type(uri, self.only)
            return self.only if named is None else None
        if named is None:
            return None
        if self.allowed is not None and named not in self.allowed:
            raise ImageNotAllowedError(
                f"{redact(uri)} names the connection {named!r}, which images from data may not "
                "use. To allow it, add it to the option [imagetag] allowed_connections."
            )
        self._check_type(uri, named)
        return None

    def _check_type(self, uri: str, conn_id: str) -> None:
        conn_type = self.types.type_of(conn_id)
        if conn_type not in CONNECTION_TYPES.get(scheme_of(uri), frozenset()):
            raise ImageNotAllowedError(
                f"{redact(uri)} would be read with the connection {conn_id!r} of the type "
                f"{conn_type!r}, which is not one of a storage for {scheme_of(uri)}://."
            )


def connection_in(uri: str) -> str | None:
    """Return the id of the connection that a URI of an object storage names; None for none."""
    place = uri.partition("://")[2].partition("/")[0]
    named, at, _ = place.rpartition("@")
    return named if at else None


def _read_type(conn_id: str) -> str | None:
    from airflow_imagetag.adapters.airflow_sdk import AirflowNotFoundException, BaseHook

    try:
        return BaseHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException:
        raise UnknownConnectionError(
            f"There is no connection {conn_id!r}. Create it, or correct the URI that names it."
        ) from None
    # A connection may be malformed, or its backend out of reach.
    except Exception as error:
        raise StorageAccessError(
            f"The connection {conn_id!r} cannot be read: {type(error).__name__}: "
            f"{redact_text(str(error))[:300]}"
        ) from None
