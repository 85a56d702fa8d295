"""The signature of TIIA, against that of the vendor's SDK."""

from __future__ import annotations

import hashlib
import random
import string
from datetime import UTC, datetime
from functools import partial

import pytest
from tencentcloud.common.credential import Credential
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.tiia.v20190529.tiia_client import TiiaClient

from airflow_imagetag.services.tiia.signature import UNSIGNED_PAYLOAD, sign_tc3

CLIENT = TiiaClient(Credential("id", "key"), "ap-guangzhou")
CONTENT_TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "application/octet-stream",
    "multipart/form-data; boundary=b",
)


def by_the_sdk(
    secret_key: str,
    *,
    service: str,
    host: str,
    content_type: str,
    now: int,
    body: bytes,
    is_payload_signed: bool,
) -> str:
    """Return the signature that the SDK makes of a POST."""
    headers = {"Content-Type": content_type, "Host": host, "X-TC-Timestamp": str(now)}
    if not is_payload_signed:
        headers["X-TC-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    date = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    request = RequestInternal(host, "POST", "/", headers, body)
    signature: str = CLIENT._get_tc3_signature(None, request, date, service, secret_key)
    return signature


@pytest.mark.parametrize("is_payload_signed", [True, False])
@pytest.mark.parametrize("seed", range(200))
def test_equal_to_the_vendors_sdk(seed, is_payload_signed):
    """For any key, host, second and body, the SDK's own signature is the same."""
    chance = random.Random(seed)

    def text(longest: int, more: str = "-_.") -> str:
        length = chance.randint(1, longest)
        return "".join(chance.choices(string.ascii_letters + string.digits + more, k=length))

    secret_id, secret_key = text(40), text(64, string.punctuation)
    service = text(10).lower()
    host = text(60).lower() + chance.choice(["", ":8080"])
    content_type = chance.choice(CONTENT_TYPES)
    # Up to the year 2106.
    now = chance.randint(0, 2**32)
    body = chance.randbytes(chance.choice([0, 1, 100, 100_000]))
    ours = sign_tc3(
        secret_id,
        secret_key,
        service=service,
        host=host,
        content_type=content_type,
        now=now,
        payload=body if is_payload_signed else UNSIGNED_PAYLOAD,
    )
    signature = by_the_sdk(
        secret_key,
        service=service,
        host=host,
        content_type=content_type,
        now=now,
        body=body,
        is_payload_signed=is_payload_signed,
    )
    date = datetime.fromtimestamp(now, UTC).date().isoformat()
    assert ours == (
        f"TC3-HMAC-SHA256 Credential={secret_id}/{date}/{service}/tc3_request, "
        f"SignedHeaders=content-type;host, Signature={signature}"
    )


def test_a_digest_that_is_known_is_not_computed_again():
    """The SHA-256 of the body gives the same signature as the body."""
    body = b'{"ImageUrl": "https://host/a"}'
    signed = partial(
        sign_tc3, "id", "key", service="tiia", host="h", content_type="application/json", now=1
    )
    by_body = signed(payload=body)
    digest = hashlib.sha256(body).hexdigest()
    assert signed(payload_sha256=digest) == by_body
