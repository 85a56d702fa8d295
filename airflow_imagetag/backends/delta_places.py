"""Folders of Delta tables: their URIs and credentials as the library for Delta tables takes them.

The library reads storages by itself, so it is given the credentials of Airflow's connection.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from airflow_imagetag.backends.places import Place, place_of
from airflow_imagetag.backends.storage_faults import Fault, diagnose
from airflow_imagetag.errors import ConfigurationError, ImageTagError, StorageError
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import is_local, scheme_of

PROBE = "_imagetag_probe"
"""Beginning of the name of a file that is written and removed; Delta reads no such name."""

EMULATED_ACCOUNT = "devstoreaccount1"
"""The account of Azurite. The library must know it, since Azurite lists blobs in its own way."""


@dataclass(frozen=True, slots=True)
class DeltaPlace:
    """The folder of the tables.

    :param path: as the author of the DAG file wrote it.
    :param conn_id: the storage's connection, if the path names none.
    """

    path: str
    conn_id: str | None = None

    @property
    def shown(self) -> str:
        """The folder as messages show it."""
        return redact(self.path)

    def _place(self) -> Place:
        return place_of(self.path, self.conn_id)

    def table_uri(self, name: str) -> str:
        """Return the URI of a table.

        :param name: of its folder.
        """
        root = self._place().path.rstrip("/")
        if is_local(self.path):
            return f"{root}/{name}"
        return f"{_SCHEMES[scheme_of(self.path)]}://{root}/{name}"

    def file_system(self) -> Any:
        """Return the file system of the storage, one of fsspec's."""
        return self._place().file_system

    def file_path(self, table: str, name: str) -> str:
        """Return the path of a file of a table, as the file system takes it.

        :param name: as the table's log has it.
        """
        return f"{self._place().path.rstrip('/')}/{table}/{unquote(name)}"

    def options(self) -> dict[str, str]:
        """Return the options of the storage, with the credentials that the connection has now."""
        if is_local(self.path):
            return {}
        place = self._place()
        return _OPTIONS[_SCHEMES[scheme_of(self.path)]](place)

    def check(self) -> None:
        """Check that the storage can be reached, with the errors of its connection.

        :raises ConfigurationError: the bucket does not exist, or the connection is refused.
        :raises StorageError: the storage cannot be reached.
        """
        if is_local(self.path):
            return
        place = self._place()
        bucket = place.path.partition("/")[0]
        try:
            place.file_system.invalidate_cache()
            found = place.file_system.exists(bucket)
            if found:
                place.file_system.ls(bucket)
        # Each storage's library has an error tree of its own.
        except Exception as error:
            raise self.error(error, ConfigurationError) from None
        if not found:
            raise ConfigurationError(
                f"{self.shown} cannot be used: there is no bucket {bucket}. Create it, or correct "
                "the path."
            )

    def check_writable(self) -> None:
        """Write a file and remove it.

        :raises ConfigurationError: the storage refuses the file.
        """
        place = self._place()
        path = f"{place.path.rstrip('/')}/{PROBE}-{uuid.uuid4().hex}"
        try:
            place.file_system.pipe_file(path, b"probe")
            place.file_system.rm_file(path)
        # Each storage's library has an error tree of its own.
        except Exception as error:
            raise ConfigurationError(
                f"{self.shown} cannot be written to: {type(error).__name__}: "
                f"{redact_text(str(error))[:300]}"
            ) from None

    def error(self, error: Exception, kind: type[ImageTagError]) -> ImageTagError:
        """Return our own error for one of a library.

        :param kind: the class, unless the fault may pass.
        """
        text = f"{type(error).__name__}: {redact_text(str(error))[:300]}"
        if diagnose(error).fault is Fault.MOMENT:
            kind = StorageError
        return kind(f"{self.shown} cannot be used: {text}")


def delta_place(path: str, conn_id: str | None) -> DeltaPlace:
    """Return the folder of Delta tables, after a check of its requirements.

    :param path: the folder.
    :param conn_id: the storage's connection, if the path names none.
    :raises ConfigurationError: the extra ``delta`` or the connection is missing, or the library
        does not know the storage.
    :raises StorageError: the storage cannot be reached.
    """
    if find_spec("deltalake") is None:
        raise ConfigurationError(
            "DeltaLabelStore needs the package deltalake: pip install "
            "'airflow-provider-imagetag[delta]'."
        )
    place = DeltaPlace(path, conn_id)
    if not is_local(path) and scheme_of(path) not in _SCHEMES:
        raise ConfigurationError(
            f"{place.shown} cannot hold Delta tables: their library does not know "
            f"{scheme_of(path)}://. Use S3, Google Cloud Storage, Azure or a local folder, or a "
            "ParquetLabelStore."
        )
    place.check()
    return place


def _s3_options(place: Place) -> dict[str, str]:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=place.conn_id)
    session = hook.get_session()
    endpoint = hook.conn_config.get_service_endpoint_url("s3")
    credentials = session.get_credentials()
    options = {"aws_region": hook.region_name or session.region_name or "us-east-1"}
    if endpoint:
        options["aws_endpoint_url"] = endpoint
        options["aws_allow_http"] = str(endpoint.startswith("http://")).lower()
    if credentials is None:
        return options | {"aws_skip_signature": "true"}
    keys = credentials.get_frozen_credentials()
    options["aws_access_key_id"] = keys.access_key
    options["aws_secret_access_key"] = keys.secret_key
    if keys.token:
        options["aws_session_token"] = keys.token
    return options


def _azure_options(place: Place) -> dict[str, str]:
    fields = {
        "azure_storage_account_name": "account_name",
        "azure_storage_account_key": "account_key",
        "azure_storage_sas_token": "sas_token",
        "azure_storage_client_id": "client_id",
        "azure_storage_client_secret": "client_secret",
        "azure_storage_tenant_id": "tenant_id",
    }
    options = {name: getattr(place.file_system, field, None) for name, field in fields.items()}
    text = str(getattr(place.file_system, "connection_string", None) or "")
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    options |= {
        name: parts[part]
        for name, part in (
            ("azure_storage_account_name", "AccountName"),
            ("azure_storage_account_key", "AccountKey"),
            ("azure_storage_sas_token", "SharedAccessSignature"),
            ("azure_storage_endpoint", "BlobEndpoint"),
        )
        if part in parts
    }
    if str(options.get("azure_storage_endpoint", "")).startswith("http://"):
        options["allow_http"] = "true"
    if options.get("azure_storage_account_name") == EMULATED_ACCOUNT:
        options["azure_storage_use_emulator"] = "true"
    return {name: str(value) for name, value in options.items() if value}


def _google_options(place: Place) -> dict[str, str]:
    if place.conn_id is None:
        # The library finds the worker's own credentials.
        return {}
    from airflow_imagetag.adapters.airflow_sdk import BaseHook

    extra: dict[str, Any] = BaseHook.get_connection(place.conn_id).extra_dejson
    if unknown := [field for field in _UNKNOWN_TO_DELTA if extra.get(field)]:
        raise ConfigurationError(
            f"Delta tables cannot be reached through connection {place.conn_id!r}: their library "
            f"does not know {', '.join(unknown)}. Give the connection keyfile_dict or key_path, or "
            "use the worker's own credentials."
        )
    options = {
        name: _text(extra[field]) for name, field in _GOOGLE_FIELDS.items() if extra.get(field)
    }
    if extra.get("is_anonymous"):
        options["google_skip_signature"] = "true"
    if options.get("google_base_url", "").startswith("http://"):
        options["allow_http"] = "true"
    return options


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_GOOGLE_FIELDS = {
    "google_service_account_key": "keyfile_dict",
    "google_service_account": "key_path",
    "google_base_url": "gcs.endpoint",
}
"""Fields of a connection's extra that the library knows, by its own names."""

_UNKNOWN_TO_DELTA = ("credential_config_file", "key_secret_name", "impersonation_chain")
"""Fields by which Airflow's provider gets credentials in ways that the library does not know."""

_SCHEMES = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "az",
    "abfss": "az",
    "az": "az",
    "adl": "az",
    "wasb": "az",
    "wasbs": "az",
}
"""The library's scheme of each of ours."""

_OPTIONS = {"s3": _s3_options, "gs": _google_options, "az": _azure_options}
