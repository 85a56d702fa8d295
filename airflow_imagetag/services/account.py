"""One service account: what an ``imagetag`` connection says, checked and parsed once."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_imagetag.services.base import Service

DEFAULT_HOST = "recognition.image.myqcloud.com"
DEFAULT_API = "picture_classify"
DEFAULT_REGION = "ap-guangzhou"
CREDENTIALS = frozenset({"keys", "cvm_role", "assume_role", "tke_oidc"})
IMAGE_ENCODINGS = frozenset({"multipart", "base64"})
DEFAULT_REQUESTS_PER_SECOND = 20.0
DEFAULT_TIMEOUT_SECONDS = 30.0

T = TypeVar("T")
D = TypeVar("D")

_APP_ID = re.compile(r"[0-9]{1,20}")
_HOST = re.compile(r"[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\]")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

FIELDS: Mapping[str, str] = {
    "login": "login (the SecretId)",
    "password": "password (the SecretKey)",
    "app_id": "app_id in extra",
}
"""How messages name the fields of the account."""


@dataclass(frozen=True, slots=True)
class Account:
    """A label-service account and how to reach it.

    :param app_id: the account's AppID; empty where the interface has no use for it.
    :param secret_id: SecretId of the key that signs; empty where a role gives it.
    :param secret_key: SecretKey of the key that signs; likewise.
    :param endpoint: scheme, host and port, such as ``https://recognition.image.myqcloud.com``.
    :param bucket: a field of older accounts, may be empty.
    :param api: the service's interface.
    :param requests_per_second: the account's quota; None for no limit on this side.
    :param max_in_flight: bound of concurrent requests of one task; None lets the task choose.
    :param timeout_seconds: for one request, from connecting to the last byte of the answer.
    :param price_per_thousand: price of 1,000 calls, in the currency you pay in; None if unknown.
    :param proxy: URL of an HTTP proxy; None takes the environment's.
    :param image_encoding: how bytes are sent: ``multipart`` as they are, or ``base64`` in JSON, a
        third larger, for a gateway that does not pass multipart on.
    :param quota_conn_id: a Redis or SQL connection through which all workers share the quota; None
        where each task has it for itself.
    :param quota_fallback_share: share of the quota that each task takes while that connection is
        out of reach, above 0 up to 1; None ends the task.
    :param verify: True checks the server's certificate, False does not, a text is the path of a
        file of certificate authorities.
    :param region: region of the service, for interfaces that have regions.
    :param scenes: scenes that labels are asked for, for interfaces that have scenes.
    :param token: goes with temporary keys, for interfaces that take them.
    :param credentials: where the keys come from: ``keys`` are those of the connection; the others
        are roles of the vendor's access management, for interfaces that take them.
    :param role: name of the role for ``cvm_role``, its ARN for ``assume_role``.
    :param extra: all of the connection's extra, for services of other packages.
    """

    app_id: str
    secret_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    endpoint: str = f"https://{DEFAULT_HOST}"
    bucket: str = ""
    api: str = DEFAULT_API
    requests_per_second: float | None = DEFAULT_REQUESTS_PER_SECOND
    max_in_flight: int | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    price_per_thousand: float | None = None
    image_encoding: str = "multipart"
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True
    quota_conn_id: str | None = None
    quota_fallback_share: float | None = None
    region: str = DEFAULT_REGION
    scenes: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    credentials: str = "keys"
    role: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def unknown_names(self) -> dict[str, str | None]:
        """Names of the extra that no field here has and that are set, each with the nearest known.

        They may be those of a service of another package.
        """
        return {
            name: next(iter(get_close_matches(name.lower(), EXTRA_NAMES, n=1)), None)
            for name, value in self.extra.items()
            if name not in EXTRA_NAMES and value not in (None, "")
        }

    @property
    def owner(self) -> str:
        """Names the account among others, as far as it is known; empty where it is not."""
        return self.app_id or self.role or self.secret_id

    @property
    def quota_name(self) -> str:
        """Names the quota among those of other accounts and interfaces."""
        owner = self.owner
        if not self.app_id:
            # Whoever sees the quota's name need not see the key's.
            owner = hashlib.sha256(owner.encode()).hexdigest()[:16]
        return f"{owner}@{urlsplit(self.endpoint).netloc}/{self.api}"[:200]


EXTRA_NAMES = frozenset(each.name for each in fields_of(Account)) - {
    "secret_id",
    "secret_key",
    "endpoint",
    "extra",
}
"""What the connection's extra may hold; an account's fields have the same names."""


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
    :raises ConfigurationError: names the connection, the field and what to change.
    """
    fields = _Fields(conn_id, extra)
    service = fields.optional("api", find_service, find_service(DEFAULT_API))
    account = Account(
        app_id=fields.optional("app_id", _app_id, ""),
        secret_id=fields.check("login (the SecretId)", login, _token, ""),
        secret_key=fields.check("password (the SecretKey)", password, _token, ""),
        endpoint=_endpoint(fields, host or service.host, port, schema),
        bucket=fields.optional("bucket", _bucket, ""),
        api=service.api,
        requests_per_second=fields.optional(
            "requests_per_second", _positive_or_zero, DEFAULT_REQUESTS_PER_SECOND
        )
        or None,
        max_in_flight=fields.optional("max_in_flight", _positive_int, None),
        timeout_seconds=fields.optional("timeout_seconds", _positive, DEFAULT_TIMEOUT_SECONDS),
        price_per_thousand=fields.optional("price_per_thousand", _positive_or_zero, None),
        image_encoding=fields.optional("image_encoding", _one_of(IMAGE_ENCODINGS), "multipart"),
        proxy=fields.optional("proxy", _proxy, None),
        verify=fields.optional("verify", _verify, True),
        quota_conn_id=fields.optional("quota_conn_id", _conn_id, None),
        quota_fallback_share=fields.optional("quota_fallback_share", _share, None),
        region=fields.optional("region", _region, DEFAULT_REGION),
        scenes=fields.optional("scenes", _names, ()),
        token=fields.optional("token", _token, None),
        credentials=fields.optional("credentials", _one_of(CREDENTIALS), "keys"),
        role=fields.optional("role", _token, None),
        extra=dict(extra),
    )
    for complaint in service.validation_errors(account):
        # What is missing may be there under another name.
        hints = [
            f" It has {name!r}: is {nearest} meant?"
            for name, nearest in account.unknown_names.items()
            if nearest
        ]
        raise fields.error(f"{complaint}.{''.join(hints)}")
    return account


class _Fields:
    """Reads fields and turns a parser's complaint into an error that names the place."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self.conn_id = conn_id
        self.extra = extra

    def error(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"Connection {self.conn_id!r}: {what}")

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
    # urlsplit drops line breaks, so the text is looked at as well.
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


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"must be a number, not {value!r}")
    return number


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError(f"must be above 0, not {value!r}")
    return number


def _positive_or_zero(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"must be 0 or more, not {value!r}")
    return number


def _positive_int(value: Any) -> int:
    number = _positive(value)
    if number != int(number):
        raise ValueError(f"must be a whole number, not {value!r}")
    return int(number)


def _one_of(names: frozenset[str]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        # JSON may hold a list here, which no set can be asked for.
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"must be one of {', '.join(sorted(names))}, not {value!r}")
        return value

    return parse


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


def _share(value: Any) -> float:
    number = _number(value)
    if not 0 < number <= 1:
        raise ValueError(f"must be a share above 0 and up to 1, not {value!r}")
    return number


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


def _verify(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not Path(text).is_file():
        raise ValueError(f"must be true, false or the path of a CA file, and {text!r} is no file")
    return text
