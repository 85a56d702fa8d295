"""Accepted and refused values of the Authorization header."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from airflow_imagetag.testing import Emulator
from airflow_imagetag.testing._api import EmulatorAccount, RefusalError
from airflow_imagetag.testing._recognition_signature import verify

NOW = 1437995645
ACCOUNT = EmulatorAccount(
    app_id="200001",
    secret_id="AKIDUfLUEUigQiXqm7CVSspKJnuaiIKtxqAv",
    secret_key="bLcPnl88WU30VY57ipRhSePfPdOfSruK",
    bucket="newbucket",
)
PUBLISHED = (
    "wHgvVkXpcZ3d+G0rOkAJml3R5NdhPTIwMDAwMSZiPW5ld2J1Y2tldCZrPUFLSURVZkxVRVVpZ1FpWHFtN0NWU3NwS0pu"
    "dWFpSUt0eHFBdiZlPTE0Mzc5OTU3MDQmdD0xNDM3OTk1NjQ0JnI9MjA4MTY2MDQyMSZmPQ=="
)
NINETY_DAYS = 90 * 24 * 3600


def signed(original: bytes) -> str:
    """Sign any text with the account's key, also an invalid one."""
    digest = hmac.new(ACCOUNT.secret_key.encode(), original, hashlib.sha1).digest()
    return base64.b64encode(digest + original).decode()


def text(**changes: object) -> bytes:
    """Return a good text to sign, with the changes."""
    fields = {
        "a": "200001",
        "b": "newbucket",
        "k": ACCOUNT.secret_id,
        "e": NOW + 60,
        "t": NOW,
        "r": 12345,
        "f": "",
    } | changes
    return "&".join(f"{name}={value}" for name, value in fields.items()).encode()


def test_the_vendors_published_signature_is_accepted():
    """The example of the vendor's page on signing passes while it is valid."""
    verify(PUBLISHED, ACCOUNT, now=NOW)


def test_a_missing_header_is_not_authorised():
    """No header, or an empty one, is 401."""
    for missing in (None, ""):
        with pytest.raises(RefusalError, match="missing") as caught:
            verify(missing, ACCOUNT, now=NOW)
        assert caught.value.status == 401


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        ("not base64!", "Base64"),
        ("é", "Base64"),
        (PUBLISHED.replace("+", "-"), "Base64"),
        (base64.b64encode(bytes(20)).decode(), "too short"),
        (signed(b"\xff"), "UTF-8"),
        (signed(b"a=1"), "must be a="),
        (signed(text()[2:]), "must be a="),
        (signed(text() + b"&g=1"), "must be a="),
        (signed(b"b=newbucket&" + text()), "must be a="),
        (signed(text(a="1")), "AppID"),
        (signed(text(b="other")), "bucket"),
        (signed(text(k="AKIDother")), "SecretId"),
        (base64.b64encode(bytes(20) + text()).decode(), "SecretKey"),
        (signed(text(e="soon")), "Unix seconds"),
        (signed(text(t=-1)), "Unix seconds"),
        (signed(text(e=0)), "after t"),
        (signed(text(e=NOW)), "after t"),
        (signed(text(e=NOW + NINETY_DAYS + 1)), "three months"),
        (signed(text(e=NOW - 60, t=NOW - 120)), "expired"),
        (signed(text(e=NOW + 0, t=NOW - 120)), "expired"),
        (signed(text(t=NOW + 901, e=NOW + 999)), "future"),
        (signed(text(r="12345678901")), "field r"),
        (signed(text(r="")), "field r"),
        (signed(text(r="-5")), "field r"),
        (signed(text(f="/200001/newbucket/x")), "field f"),
    ],
)
def test_a_wrong_header_is_refused_with_its_reason(authorization, message):
    """Each error gets 403 with a message of its own."""
    with pytest.raises(RefusalError, match=message) as caught:
        verify(authorization, ACCOUNT, now=NOW)
    assert caught.value.status == 403


def test_limits_are_inclusive():
    """Ninety days of life, fifteen minutes of skew and ten digits of nonce are allowed."""
    verify(signed(text(e=NOW + NINETY_DAYS, r="9999999999")), ACCOUNT, now=NOW)
    verify(signed(text(t=NOW + 900, e=NOW + 901)), ACCOUNT, now=NOW)


def test_an_account_without_bucket_accepts_any():
    """An emulator without a bucket, a field of older accounts, ignores it."""
    account = EmulatorAccount(ACCOUNT.app_id, ACCOUNT.secret_id, ACCOUNT.secret_key)
    verify(signed(text(b="anything")), account, now=NOW)
    verify(signed(text(b="")), account, now=NOW)


def test_statuses_and_bodies_over_http(client, photograph):
    """401 and 403 arrive with JSON bodies, and the refusals are counted."""
    missing = client.session.post(client.v2, json={}, timeout=60)
    wrong = client.post(
        json={}, headers={"Authorization": client.signature(secret_key="another key")}
    )
    assert (missing.status_code, wrong.status_code) == (401, 403)
    for response in (missing, wrong):
        assert response.json()["code"] == -1
        assert response.json()["message"]
    assert client.base64(photograph).status_code == 200
    stats = client.emulator.stats
    assert stats.rejected_signatures == 2
    assert stats.signatures_seen == 2
    assert stats.by_status == {401: 1, 403: 1, 200: 1}


def test_the_clock_decides_what_has_expired(connect, photograph):
    """An emulator checks signatures by its clock parameter."""
    with Emulator(clock=lambda: NOW) as emulator:
        client = connect(emulator)
        assert client.base64(photograph).status_code == 403
        current = client.signature(now=NOW, expires=NOW + 60)
        response = client.post(json={"app_id": "1250000001"}, headers={"Authorization": current})
        assert response.json()["code"] == -1301
