"""Parse the fields of an ``imagetag`` connection into an account."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.classifiers.settings import LOCAL_API, parse_local_model
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import (
    API_OF_APP_ID,
    CREDENTIALS,
    DEFAULT_API,
    DEFAULT_REGION,
    DEFAULT_REQUESTS_PER_SECOND,
    DEFAULT_TIMEOUT_SECONDS,
    IMAGE_ENCODINGS,
    Account,
)
from airflow_imagetag.services.base import LABELS_OF_FIELDS, Service

T = TypeVar("T")
D = TypeVar("D")

REQUESTS_PER_SECOND = NumberRule("a number from 0 (0 for no limit)", minimum=0)
MAX_IN_FLIGHT = NumberRule("a whole number from 1", minimum=1, is_whole=True)
TIMEOUT_SECONDS = NumberRule("a number of seconds above 0", above=0)
PRICE_PER_THOUSAND = NumberRule("a number from 0", minimum=0)
QUOTA_FALLBACK_SHARE = NumberRule("a share above 0 and up to 1", above=0, maximum=1)

_APP_ID = re.compile(r"[0-9]{1,20}")
_HOST = re.compile(r"[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\]")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def parse_account(
    *,
    conn_id: str,
    login: str | None,
    password: str | None,
    host: str | None,
    port: int | None,
    schema: str | None,
    extra: Mapping[str, Any],
    find_service: Callable[[str], type[Service]],
) -> Account:
    """Check the fields of a connection and return the account they describe.

    Precedence of the endpoint: the scheme is that of ``host`` where it is a URL, else ``schema``,
    else https; the port is that of ``host``, else ``port``, else the scheme's own. Two that
    disagree are an error. A field that is empty counts as missing.

    :param conn_id: id of the connection, for the messages.
    :param extra: the connection's extra, decoded.
    :param find_service: returns the service that an ``api`` names, or raises ValueError.
    :raises ConfigurationError: names the connection, the field and the change to make.
    """
    fields = _Fields(conn_id, extra)
    if extra.get("api") == LOCAL_API:
        return _local_account(fields)
    app_id = fields.optional("app_id", _app_id, "")
    default = find_service(API_OF_APP_ID if app_id else DEFAULT_API)
    service = fields.optional("api", find_service, default)
    requests_per_second = fields.number(
        "requests_per_second", REQUESTS_PER_SECOND, DEFAULT_REQUESTS_PER_SECOND
    )
    bucket = fields.optional("bucket", _bucket, "")
    region = fields.optional("region", _region, DEFAULT_REGION)
    # A bucket that no host can be named after is the service's to complain about.
    host_part = re.sub(r"[^A-Za-z0-9.\-]", "-", bucket)
    default_host = service.host.replace("{bucket}", host_part).replace("{region}", region)
    account = Account(
        app_id=app_id,
        secret_id=fields.check(LABELS_OF_FIELDS["login"], login, _token, ""),
        secret_key=fields.check(LABELS_OF_FIELDS["password"], password, _token, ""),
        endpoint=_endpoint(fields, host or default_host, port, schema),
        bucket=bucket,
        api=service.api,
        requests_per_second=requests_per_second or None,
        max_in_flight=fields.optional(
            "max_in_flight", partial(MAX_IN_FLIGHT.parse_whole, "max_in_flight in extra"), None
        ),
        timeout_seconds=fields.number("timeout_seconds", TIMEOUT_SECONDS, DEFAULT_TIMEOUT_SECONDS),
        price_per_thousand=fields.number("price_per_thousand", PRICE_PER_THOUSAND, None),
        image_encoding=fields.optional(
            "image_encoding", partial(_one_of, IMAGE_ENCODINGS), "multipart"
        ),
        proxy=fields.optional("proxy", _proxy, None),
        verify=fields.optional("verify", _verify, True),
        quota_conn_id=fields.optional("quota_conn_id", _conn_id, None),
        quota_fallback_share=fields.number("quota_fallback_share", QUOTA_FALLBACK_SHARE, None),
        region=region,
        scenes=fields.optional("scenes", _names, ()),
        token=fields.optional("token", _token, None),
        credentials=fields.optional("credentials", partial(_one_of, CREDENTIALS), "keys"),
        role=fields.optional("role", _token, None),
        sign_payload=fields.optional("sign_payload", _truth, True),
        extra=dict(extra),
    )
    for problem in service.validation_errors(account):
        raise fields.error(f"{problem}.{_near_misses(account)}")
    return account


def _local_account(fields: _Fields) -> Account:
    """Return the settings of a connection whose images a model in the worker labels.

    It has no quota and no price, unless it names them; fields of a service have no effect.
    """
    return Account(
        app_id="",
        secret_id="",
        secret_key="",
        endpoint="",
        api=LOCAL_API,
        requests_per_second=fields.number("requests_per_second", REQUESTS_PER_SECOND, None) or None,
        max_in_flight=fields.optional(
            "max_in_flight", partial(MAX_IN_FLIGHT.parse_whole, "max_in_flight in extra"), None
        ),
        timeout_seconds=fields.number("timeout_seconds", TIMEOUT_SECONDS, DEFAULT_TIMEOUT_SECONDS),
        price_per_thousand=fields.number("price_per_thousand", PRICE_PER_THOUSAND, 0.0),
        quota_conn_id=fields.optional("quota_conn_id", _conn_id, None),
        quota_fallback_share=fields.number("quota_fallback_share", QUOTA_FALLBACK_SHARE, None),
        local=parse_local_model(
            lambda name, parse, default: fields.check(
                f"{name} in extra", fields.extra.get(name), parse, default
            )
        ),
        extra=dict(fields.extra),
    )


def _near_misses(account: Account) -> str:
    """Return a hint for each unknown name of the extra: a missing field may be misspelled."""
    return "".join(
        f" It has {name!r}: is {nearest} meant?"
        for name, nearest in account.unknown_names.items()
        if nearest
    )


class _Fields:
    """Reads fields; turns a parser's error into one that names the connection and the field."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self.conn_id = conn_id
        self.extra = extra

    def error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"Connection {self.conn_id!r}: {problem}")

    def check(self, name: str, value: Any, parse: Callable[[Any], T], default: D) -> T | D:
        if value is None or value == "":
            return default
        try:
            return parse(value)
        except ConfigurationError as error:
            raise self.error(error.message) from None
        except ValueError as error:
            raise self.error(f"{name} {error}.") from None

    def optional(self, name: str, parse: Callable[[Any], T], default: D) -> T | D:
        return self.check(f"{name} in extra", self.extra.get(name), parse, default)

    def number(self, name: str, rule: NumberRule, default: D) -> float | D:
        number = self.optional(name, partial(rule.parse, f"{name} in extra"), None)
        return default if number is None else number


def _endpoint(fields: _Fields, host: str, port: int | None, schema: str | None) -> str:
    text = host.strip()
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        url_port = parts.port
    except ValueError:
        raise fields.error("host is not a host name or URL.") from None
    if parts.username is not None or parts.password is not None:
        raise fields.error("host must not hold credentials; they belong in login and password.")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise fields.error(
            "host must be a host name or 'https://host:port' with no path; the path follows from "
            "'api'."
        )
    name = parts.netloc.removesuffix(f":{url_port}")
    # urlsplit drops line breaks, so the text is checked as well.
    if not parts.hostname or not _TOKEN.fullmatch(text) or not _HOST.fullmatch(name):
        raise fields.error("host is not a host name or URL.")
    scheme = _agree(fields, "scheme", parts.scheme.lower() or None, (schema or "").lower() or None)
    if scheme not in (None, "http", "https"):
        raise fields.error(f"schema must be 'https' or 'http', not {scheme!r}.")
    chosen_port = _agree(fields, "port", url_port, port or None)
    suffix = "" if chosen_port is None else f":{chosen_port}"
    hostname = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme or 'https'}://{hostname}{suffix}"


def _agree(fields: _Fields, name: str, in_host: T | None, in_field: T | None) -> T | None:
    if in_host is not None and in_field is not None and in_host != in_field:
        raise fields.error(f"host says {name} {in_host}, the field says {in_field}; keep one.")
    return in_field if in_host is None else in_host


def _token(value: Any) -> str:
    text = str(value).strip()
    if not _TOKEN.fullmatch(text) or "&" in text:
        raise ValueError("holds a character that no key has (a blank, a line break, '&')")
    return text


def _app_id(value: Any) -> str:
    text = str(value).strip()
    if isinstance(value, (bool, float)) or not _APP_ID.fullmatch(text):
        raise ValueError("must be the account's AppID, a number such as 1250000001")
    return text


def _bucket(value: Any) -> str:
    text = str(value)
    if not isinstance(value, (str, int)) or not _TOKEN.fullmatch(text) or "&" in text:
        raise ValueError("must be a bucket name")
    return text


def _one_of(names: frozenset[str], value: Any) -> str:
    # JSON may hold a list here, which is not hashable.
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"must be one of {', '.join(sorted(names))}, not {value!r}")
    return value


def _proxy(value: Any) -> str:
    # The value may hold a password, so no message repeats it, urlsplit's own neither.
    try:
        parts = urlsplit(str(value))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be the URL of an HTTP proxy, such as http://proxy.example:3128")
    return str(value)


def _conn_id(value: Any) -> str:
    text = str(value).strip()
    if not isinstance(value, str) or not _TOKEN.fullmatch(text):
        raise ValueError("must be the id of a connection")
    return text


def _region(value: Any) -> str:
    text = str(value).strip()
    if not _REGION.fullmatch(text):
        raise ValueError(f"must be a region such as {DEFAULT_REGION}, not {value!r}")
    return text


def _names(value: Any) -> tuple[str, ...]:
    """Return the names of a list, or of a text with commas, each once."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"must be a list of names, or names with commas, not {value!r}")
    return tuple(dict.fromkeys(name.strip().upper() for name in names if name.strip()))


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise ValueError(f"must be true or false, not {value!r}")
    return text == "true"


def _verify(value: Any) -> bool | str:
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return _truth(text)
    if not Path(text).is_file():
        raise ValueError(f"must be true, false or the path of a CA file, and {text!r} is no file")
    return text
