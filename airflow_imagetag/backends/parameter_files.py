"""Private: small files of any storage that a parameter of a task names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from airflow_imagetag.backends import configuration
from airflow_imagetag.backends.connection_policy import ConnectionPolicy
from airflow_imagetag.backends.places import Place, place_of, read_start
from airflow_imagetag.backends.storage_faults import storage_error, storage_failure
from airflow_imagetag.errors import ConfigurationError, ImageNotAllowedError, ImageTagError
from airflow_imagetag.safety.local_files import (
    NoRegularFileError,
    OutsideFoldersError,
    open_local,
)
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import (
    STORAGE_SCHEMES,
    is_local,
    local_path,
    scheme_of,
)


@dataclass(frozen=True, slots=True)
class PathPolicy:
    """The files that a path may name if the author of the DAG file has not written it.

    :param folders: those that a local file must lie in.
    :param connections: those that an object may be read with.
    """

    folders: Collection[str] = ()
    connections: ConnectionPolicy = field(default_factory=ConnectionPolicy)


def configured_policy(only: str | None = None) -> PathPolicy:
    """Return the files that Airflow's configuration lets data name.

    :param only: the one connection that data may use; None for all that the configuration allows.
    """
    return PathPolicy(
        configuration.allowed_local_folders(),
        ConnectionPolicy(only, configuration.allowed_connections()),
    )


def read_named_file(path: str, policy: PathPolicy | None, what: str, max_bytes: int) -> bytes:
    """Return the content of a file, one byte more than ``max_bytes`` if it is larger.

    :param path: a local path, or the URI of an object.
    :param policy: files that the path may name; None for any file.
    :param what: the parameter, for messages.
    :raises ConfigurationError: the path may not be read, or names no file.
    :raises StorageError: the storage failed.
    """
    read = _local if is_local(path) else _stored
    return read(path, policy, what, max_bytes + 1)


def _local(path: str, policy: PathPolicy | None, what: str, size: int) -> bytes:
    folders = None if policy is None else policy.folders
    try:
        with named_file_errors(path, what), open_local(local_path(path), folders) as file:
            return file.read(size)
    except OutsideFoldersError:
        raise ConfigurationError(
            f"{what} {redact(path)} is a file of the worker that a template or another task "
            "has named. If that is meant, add its folder to the option "
            "[imagetag] allowed_local_paths."
        ) from None


def _stored(path: str, policy: PathPolicy | None, what: str, size: int) -> bytes:
    place = named_place(path, policy, what)
    with named_file_errors(path, what):
        # A cached listing has the size of an earlier version of the file.
        place.file_system.invalidate_cache()
        return read_start(place, size)


def named_place(path: str, policy: PathPolicy | None, what: str) -> Place:
    """Return the place of a file of an object storage.

    :param path: the URI of an object.
    :param policy: objects that the path may name; None for any object.
    :param what: the parameter, for messages.
    :raises ConfigurationError: the path may not be read, or names no object.
    :raises StorageError: the storage failed.
    """
    if scheme_of(path) not in STORAGE_SCHEMES:
        raise ConfigurationError(
            f"{what} {redact(path)} has the scheme {scheme_of(path)!r}. Use a local path or an "
            "object storage such as s3, gs or abfs."
        )
    try:
        return place_of(path, None if policy is None else policy.connections.check(path))
    except ImageNotAllowedError as error:
        raise ConfigurationError(f"{what}: {error.message}") from None
    except ConfigurationError as error:
        raise type(error)(f"{what}: {error.message}") from None


def write_named_file(path: str, content: bytes, what: str) -> None:
    """Write a file; folders that are missing on a local disk are made.

    :param path: a local path, or the URI of an object.
    :param what: names the file in messages.
    :raises ConfigurationError: the path cannot be written to.
    :raises StorageError: the storage failed.
    """
    if is_local(path):
        file = Path(local_path(path))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        except OSError as error:
            raise ConfigurationError(
                f"{what} {redact(path)} cannot be written: {error.strerror}. Correct the path."
            ) from None
        return
    place = place_of(path)
    try:
        place.file_system.pipe_file(place.path, content)
    # Each storage's library has an error tree of its own.
    except Exception as error:
        raise storage_failure(error, f"{what} {redact(path)} cannot be written") from None


@contextmanager
def named_file_errors(path: str, name: str) -> Iterator[None]:
    """Map the errors of reading a file to ours.

    :param path: a local path, or the URI of an object.
    :param name: the parameter, for messages.
    :raises ConfigurationError: it does not exist, or may not be read.
    :raises StorageError: its storage failed.
    """
    what = f"{name} {redact(path)}"
    try:
        yield
    except (ImageTagError, OutsideFoldersError):
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, NoRegularFileError):
        raise ConfigurationError(f"{what} does not exist, or is not a file.") from None
    except (PermissionError, ValueError) as error:
        raise ConfigurationError(
            f"{what} cannot be read: {type(error).__name__}: {redact_text(str(error))[:300]}"
        ) from None
    # Each storage's library has an error tree of its own.
    except Exception as error:
        raise storage_error(error, f"{what} cannot be read") from None
