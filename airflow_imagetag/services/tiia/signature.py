"""TC3-HMAC-SHA256, the vendor's signature method v3.

Source: the vendor's page on it, https://cloud.tencent.com/document/api/213/30654, and the method
that its SDK signs with.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from functools import lru_cache

ALGORITHM = "TC3-HMAC-SHA256"

UNSIGNED_PAYLOAD = b"UNSIGNED-PAYLOAD"
"""Signed in place of the body where the header ``X-TC-Content-SHA256`` has this value."""

_SIGNED_HEADERS = "content-type;host"


def sign_tc3(
    secret_id: str,
    secret_key: str,
    *,
    service: str,
    host: str,
    content_type: str,
    now: int,
    payload: bytes = b"",
    payload_sha256: str | None = None,
) -> str:
    """Return the value of the ``Authorization`` header of a POST request for the path ``/``.

    The function is pure.

    :param secret_id: the SecretId of the key.
    :param secret_key: the SecretKey of the key.
    :param service: the product, such as ``tiia``.
    :param host: value of the header ``Host``, in lower case, with the port where it has one.
    :param content_type: value of the header ``Content-Type``.
    :param now: value of the header ``X-TC-Timestamp``: time of signing, in Unix seconds.
    :param payload: the body, or ``UNSIGNED_PAYLOAD``.
    :param payload_sha256: SHA-256 of the payload in hex, where it is known; None computes it.
    """
    date = datetime.fromtimestamp(now, UTC).date().isoformat()
    scope = f"{date}/{service}/tc3_request"
    digest = payload_sha256 or hashlib.sha256(payload).hexdigest()
    # The empty line is the query string, which a POST has none of.
    canonical_request = (
        f"POST\n/\n\ncontent-type:{content_type}\nhost:{host}\n\n{_SIGNED_HEADERS}\n{digest}"
    )
    request_digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    text = f"{ALGORITHM}\n{now}\n{scope}\n{request_digest}"
    key = _signing_key(secret_key, date, service)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        f"{ALGORITHM} Credential={secret_id}/{scope}, "
        f"SignedHeaders={_SIGNED_HEADERS}, Signature={signature}"
    )


# The key is the same for a whole day; deriving it is most of the cost of a signature.
@lru_cache(maxsize=4)
def _signing_key(secret_key: str, date: str, service: str) -> bytes:
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
