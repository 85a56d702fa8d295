"""The signature of Cloud Object Storage, against that of the vendor's client."""

from __future__ import annotations

import logging
import random
import string
import time
from types import SimpleNamespace

import pytest
from qcloud_cos.cos_auth import CosS3Auth

from airflow_imagetag.services.account import Account
from airflow_imagetag.services.ci.signature import encode, sign_cos
from airflow_imagetag.services.ci.signing import Signer

NOW = 1_790_000_000
ODD = string.ascii_letters + string.digits + "-_.~ /%+&=?#:;,'\"()<>日本ü😀"


def by_the_client(
    monkeypatch: pytest.MonkeyPatch,
    *,
    secret_id: str,
    secret_key: str,
    url: str,
    key: str,
    params: dict[str, str],
    headers: dict[str, str],
    seconds: int,
) -> str:
    """Return the Authorization header that the client makes of a GET."""
    monkeypatch.setattr(time, "time", lambda: NOW + 0.7)
    configuration = SimpleNamespace(
        _secret_id=secret_id,
        _secret_key=secret_key,
        _credential_inst=None,
        _anonymous=False,
        _sign_params=True,
        _sign_host=True,
    )
    request = SimpleNamespace(method="GET", url=url, headers=dict(headers))
    CosS3Auth(configuration, key, params, seconds)(request)
    value: str = request.headers["Authorization"]
    return value


@pytest.mark.parametrize("seed", range(100))
def test_equal_to_the_vendors_client(seed, monkeypatch):
    """For any key, object, parameter and token, the client's own signature is the same."""
    chance = random.Random(seed)

    def text(longest: int, characters: str = string.ascii_letters + string.digits) -> str:
        return "".join(chance.choices(characters, k=chance.randint(1, longest)))

    secret_id, secret_key = text(40), text(64, string.punctuation)
    # The client takes a name that begins with a slash for one without it.
    key = text(80, ODD).lstrip("/") or "a"
    params = {"ci-process": "detect-label"}
    if chance.random() < 0.5:
        params["scenes"] = "web,camera"
    if chance.random() < 0.5:
        params["detect-url"] = "https://a.b/" + text(60, ODD)
    headers = {"x-cos-security-token": text(80, string.printable)} if seed % 2 else {}
    host = text(30).lower() + ".cos.ap-guangzhou.myqcloud.com"
    seconds = chance.randint(1, 100_000)
    ours = sign_cos(
        secret_id,
        secret_key,
        method="GET",
        path=f"/{key}",
        params=params,
        headers={"Host": host, **headers},
        begins=NOW - 60,
        ends=NOW + seconds,
    )
    assert ours == by_the_client(
        monkeypatch,
        secret_id=secret_id,
        secret_key=secret_key,
        url=f"https://{host}/a",
        key=key,
        params=params,
        headers=headers,
        seconds=seconds,
    )


def test_a_signed_request():
    """It is signed for the object as it is named, and its URL has the name percent-encoded."""
    account = Account(
        "", "AKIDid", "5ecre7", "https://b-1.cos.r.myqcloud.com", api="ci_detect_label", token="tok"
    )
    request = Signer(account, clock=lambda: NOW).get("a b/../ü?.jpg", {"ci-process": "x y"})
    assert request.method == "GET"
    assert request.joined() == b""
    assert request.url == (
        "https://b-1.cos.r.myqcloud.com/a%20b/..%2F%C3%BC%3F.jpg?ci-process=x%20y"
    )
    signature = request.headers["Authorization"]
    assert signature == sign_cos(
        "AKIDid",
        "5ecre7",
        method="GET",
        path="/a b/../ü?.jpg",
        params={"ci-process": "x y"},
        headers={"Host": "b-1.cos.r.myqcloud.com", "x-cos-security-token": "tok"},
        begins=NOW - 60,
        ends=NOW + 900,
    )
    assert "q-header-list=host;x-cos-security-token&q-url-param-list=ci-process" in signature
    assert not {"5ecre7", "tok"} & {repr(request), repr(account)}
    assert "5ecre7" not in signature


def test_nothing_is_logged(caplog):
    """The vendor's client logs its signing key; this one logs nothing."""
    caplog.set_level(logging.DEBUG)
    account = Account("", "AKIDid", "5ecre7", "https://b-1", api="ci_detect_label")
    Signer(account).get("a", {})
    assert not caplog.records


def test_encoding():
    """Only letters, digits and four signs stay as they are."""
    assert encode("aZ09-_.~/ é") == "aZ09-_.~%2F%20%C3%A9"
