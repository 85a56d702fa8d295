"""The door to accounts: Airflow's ``imagetag`` connections, parsed."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.airflow_sdk import mask_secret
from airflow_imagetag.backends.configuration import CONN_TYPE
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import API_OF_APP_ID, DEFAULT_API, Account
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.registry import BUILT_IN, find_service

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Connection

log = logging.getLogger(__name__)


def account_of(connection: Connection) -> Account:
    """Return the account that an ``imagetag`` connection describes.

    Logs a warning if the connection's extra has names that nothing reads.

    :raises ConfigurationError: names the field that is wrong, and the connection's type if it is
        another one.
    """
    try:
        account = parse_account(
            conn_id=connection.conn_id,
            login=connection.login,
            password=connection.password,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            extra=_extra(connection),
            find_service=find_service,
        )
    except ConfigurationError as error:
        if connection.conn_type == CONN_TYPE:
            raise
        # Most likely another connection was meant.
        raise ConfigurationError(
            f"{error.message} The connection has the type {connection.conn_type!r}; that of an "
            f"account is {CONN_TYPE!r}."
        ) from None
    if account.api == API_OF_APP_ID and not account.extra.get("api"):
        log.warning(
            "Connection %r names no api. It has an app_id, so it goes on with %s, the default of "
            'version 0.1. Write "api": "%s" into its extra to keep that, or "api": "%s", the '
            "interface that the vendor keeps.",
            connection.conn_id,
            API_OF_APP_ID,
            API_OF_APP_ID,
            DEFAULT_API,
        )
    # A service of another package may read names of its own.
    if (account.local or account.api in BUILT_IN) and (unknown := account.unknown_names):
        log.warning(
            "Connection %r: nothing reads these names in extra: %s. Correct or remove them.",
            connection.conn_id,
            ", ".join(
                f"{name!r}" + (f" (is {nearest} meant?)" if nearest else "")
                for name, nearest in unknown.items()
            ),
        )
    return account


def _extra(connection: Connection) -> dict[str, Any]:
    # extra_dejson turns text that is not JSON into an empty dict and a log line; here it is an
    # error.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigurationError(
            f"Connection {connection.conn_id!r}: extra must be a JSON object such as "
            '{"app_id": "1250000001"}.'
        )
    # From here on, Airflow masks the values of names such as token and proxy in logs.
    mask_secret(extra)
    return extra
