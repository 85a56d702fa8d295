"""One account of a label service, as an ``imagetag`` connection describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from airflow_imagetag.classifiers.settings import LOCAL_NAMES, LocalModel

DEFAULT_HOST = "recognition.image.myqcloud.com"
DEFAULT_API = "DetectLabelPro"
"""Interface of a connection that names none."""

API_OF_APP_ID = "picture_classify"
"""Interface of a connection that names none and has an AppID: the default of version 0.1."""
DEFAULT_REGION = "ap-guangzhou"
DEFAULT_REQUESTS_PER_SECOND = 20.0
DEFAULT_TIMEOUT_SECONDS = 30.0

CREDENTIALS = frozenset({"keys", "cvm_role", "assume_role", "tke_oidc"})
"""Values of the field ``credentials``."""

IMAGE_ENCODINGS = frozenset({"multipart", "base64"})
"""Values of the field ``image_encoding``."""

MAX_QUOTA_NAME_LENGTH = 200
"""Maximum length of a quota's name: it is a key of the table that workers share."""


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
        gives each task the whole of it.
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
    :param local: the model in the worker that labels instead of a service; None for a service.
    :param sign_payload: sign the body of each request, for interfaces whose signature has it; False
        leaves it out, which saves its digest. Only https then protects the body.
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
    local: LocalModel | None = None
    sign_payload: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def unknown_names(self) -> dict[str, str | None]:
        """Names of the extra that are set and no field here has, each with the nearest known one.

        They may be those of a service of another package.
        """
        # The form of a connection stores the defaults of a service's fields, too.
        known = EXTRA_NAMES if self.local is None else EXTRA_NAMES | LOCAL_NAMES
        return {
            name: next(iter(get_close_matches(name.lower(), known, n=1)), None)
            for name, value in self.extra.items()
            if name not in known and value not in (None, "")
        }

    @property
    def owner(self) -> str:
        """Name of the account among others, as far as it is known; empty where it is not."""
        return self.app_id or self.role or self.secret_id

    @property
    def quota_name(self) -> str:
        """Name of the quota among those of other accounts and interfaces."""
        owner = self.owner
        if not self.app_id:
            # A reader of the quota's name has no need to see the key's.
            owner = hashlib.sha256(owner.encode()).hexdigest()[:16]
        return f"{owner}@{urlsplit(self.endpoint).netloc}/{self.api}"[:MAX_QUOTA_NAME_LENGTH]


EXTRA_NAMES = frozenset(each.name for each in fields_of(Account)) - {
    "secret_id",
    "secret_key",
    "endpoint",
    "local",
    "extra",
}
"""Names of the connection's extra; the account's fields have the same names."""
