"""Accepted and refused TC3-HMAC-SHA256 signatures."""

from __future__ import annotations

from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict
from tc3_requests import SECRET_ID, SECRET_KEY, TiiaClient, code_of, good_headers, sign

from airflow_imagetag.testing import Emulator
from airflow_imagetag.testing._api import EmulatorAccount, RefusalError, RequestHead
from airflow_imagetag.testing._tc3 import verify

NOW = 1551113065
HOST = "tiia.tencentcloudapi.com"
BODY = b'{"ImageUrl": "https://example.com/a.jpg"}'
ACCOUNT = EmulatorAccount("", SECRET_ID, SECRET_KEY)

PUBLISHED_ACCOUNT = EmulatorAccount("", "AKID" + 32 * "*", 32 * "*")
PUBLISHED_BODY = (
    rb'{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}'
)
PUBLISHED_HEADERS = CaseInsensitiveDict(
    {
        "Host": "cvm.tencentcloudapi.com",
        "Content-Type": "application/json; charset=utf-8",
        "X-TC-Action": "DescribeInstances",
        "X-TC-Timestamp": "1551113065",
        "Authorization": f"TC3-HMAC-SHA256 Credential=AKID{32 * '*'}/2019-02-25/cvm/tc3_request, "
        "SignedHeaders=content-type;host;x-tc-action, "
        "Signature=10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f",
    }
)


def head(headers: CaseInsensitiveDict[str]) -> RequestHead:
    """Return the head of a POST."""
    return RequestHead("POST", "/", headers, None)


def check(
    headers: CaseInsensitiveDict[str],
    body: bytes = BODY,
    *,
    account: EmulatorAccount = ACCOUNT,
    now: float = NOW,
) -> None:
    """Verify a request for TIIA."""
    verify(head(headers), body, account, service="tiia", now=now)


def test_the_vendors_published_signature_is_accepted():
    """The example of the vendor's page on signing passes; it signs a header in other case."""
    verify(head(PUBLISHED_HEADERS), PUBLISHED_BODY, PUBLISHED_ACCOUNT, service="cvm", now=NOW + 300)


@pytest.mark.parametrize("skew_seconds", [-300, 0, 300])
def test_clocks_may_differ_by_five_minutes(skew_seconds):
    """The limit itself is allowed, in both directions."""
    check(good_headers(HOST, BODY, now=NOW), now=NOW + skew_seconds)


@pytest.mark.parametrize("skew_seconds", [-301, 301, -86400])
def test_a_clock_that_is_further_off(skew_seconds):
    """A signature that is too old, or from the future, has expired."""
    with pytest.raises(RefusalError) as caught:
        check(good_headers(HOST, BODY, now=NOW), now=NOW + skew_seconds)
    assert caught.value.code == "AuthFailure.SignatureExpire"


def test_more_headers_may_be_signed():
    """Any header may be signed, and sent in any case."""
    headers = good_headers(HOST, BODY, now=NOW)
    headers["Authorization"] = sign(headers, BODY, signed="content-type;host;x-tc-action")
    check(headers)


def test_the_payload_may_be_left_out():
    """The header UNSIGNED-PAYLOAD marks a body that is not signed."""
    headers = good_headers(HOST, b"UNSIGNED-PAYLOAD", now=NOW)
    with pytest.raises(RefusalError):
        check(headers)
    headers["X-TC-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    check(headers)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret_id": "AKIDother"}, "SecretIdNotFound"),
        ({"secret_key": "another key"}, "SignatureFailure"),
        ({"date": "2019-02-26"}, "SignatureFailure"),
        ({"date": "2019-99-99"}, "SignatureFailure"),
        ({"service": "cvm"}, "SignatureFailure"),
        ({"path": "/other"}, "SignatureFailure"),
        ({"body": b"{}"}, "SignatureFailure"),
        ({"signed": "content-type;host;x-absent"}, "SignatureFailure"),
        ({"signed": "host"}, "InvalidAuthorization"),
        ({"signed": "content-type"}, "InvalidAuthorization"),
        ({"signed": "host;content-type"}, "InvalidAuthorization"),
        ({"signed": "Content-Type;Host"}, "InvalidAuthorization"),
        ({"signed": "content-type;host;host"}, "InvalidAuthorization"),
    ],
)
def test_a_signature_of_something_else(wrong: dict[str, Any], code: str):
    """Each signed part is checked, and each mistake has its code."""
    headers = good_headers(HOST, BODY, now=NOW)
    headers["Authorization"] = sign(headers, **{"body": BODY, **wrong})
    with pytest.raises(RefusalError) as caught:
        check(headers)
    assert (caught.value.status, caught.value.code) == (200, f"AuthFailure.{code}")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("TC3-HMAC-SHA256 ", "TC3-HMAC-SHA1 ", "InvalidAuthorization"),
        ("tc3_request", "tc4_request", "InvalidAuthorization"),
        ("Credential=", "", "InvalidAuthorization"),
        (", SignedHeaders=content-type;host", "", "InvalidAuthorization"),
        ("Signature=", "Signature=é", "InvalidAuthorization"),
        ("Signature=", "Signature=0", "InvalidAuthorization"),
        ("/2019-02-25/", "/", "InvalidAuthorization"),
        ("/2019-02-25/", "/2019-02-24/", "SignatureFailure"),
    ],
)
def test_an_authorization_that_was_changed(old, new, code):
    """A value in another form is invalid, and the fields of a valid one must match."""
    headers = good_headers(HOST, BODY, now=NOW)
    assert old in headers["Authorization"]
    headers["Authorization"] = headers["Authorization"].replace(old, new)
    with pytest.raises(RefusalError) as caught:
        check(headers)
    assert caught.value.code == f"AuthFailure.{code}"


@pytest.mark.parametrize("name", ["Host", "Content-Type", "X-TC-Timestamp"])
def test_a_header_that_was_changed(name):
    """A signed header or a time that differs from the signature's is refused."""
    headers = good_headers(HOST, BODY, now=NOW)
    headers[name] = "1551113066" if name == "X-TC-Timestamp" else "other"
    with pytest.raises(RefusalError) as caught:
        check(headers)
    assert caught.value.code == "AuthFailure.SignatureFailure"


@pytest.mark.parametrize("timestamp", ["", "soon", "-1", "1551113065.5", "15511130650", "١"])
def test_an_invalid_timestamp(timestamp):
    """X-TC-Timestamp must be Unix seconds."""
    headers = good_headers(HOST, BODY, now=NOW)
    headers["X-TC-Timestamp"] = timestamp
    with pytest.raises(RefusalError) as caught:
        check(headers)
    assert caught.value.code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("expected", "given"), [("token", None), ("token", "other"), ("", "token"), ("token", "tokené")]
)
def test_a_token_that_is_not_the_accounts(expected, given):
    """Temporary keys need their token, and permanent ones have none."""
    headers = good_headers(HOST, BODY, now=NOW)
    if given is not None:
        headers["X-TC-Token"] = given
    with pytest.raises(RefusalError) as caught:
        check(headers, account=EmulatorAccount("", SECRET_ID, SECRET_KEY, token=expected))
    assert caught.value.code == "AuthFailure.TokenFailure"


def test_the_token_of_temporary_keys():
    """A temporary key with its token is accepted."""
    headers = good_headers(HOST, BODY, now=NOW)
    headers["X-TC-Token"] = "token"
    check(headers, account=EmulatorAccount("", SECRET_ID, SECRET_KEY, token="token"))


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "AuthFailure.InvalidAuthorization"),
        ("SKIP", "AuthFailure.InvalidAuthorization"),
        ("TC3-HMAC-SHA256 " + 8_000 * "x", "AuthFailure.InvalidAuthorization"),
    ],
)
def test_an_invalid_authorization(tiia: TiiaClient, authorization, code):
    """A request of TIIA without a valid signature is refused over HTTP, and counted."""
    assert code_of(tiia.send({}, changes={"Authorization": authorization})) == code
    assert tiia.emulator.stats.rejected_signatures == 1


def test_the_clock_decides_what_has_expired(connect_tiia):
    """An emulator checks signatures by its clock parameter."""
    with Emulator(clock=lambda: NOW) as emulator:
        tiia = connect_tiia(emulator)
        assert code_of(tiia.send({})) == "AuthFailure.SignatureExpire"
        current = {"X-TC-Timestamp": str(NOW)}
        assert code_of(tiia.send({}, changes=current)) == "MissingParameter.ErrorParameterEmpty"
