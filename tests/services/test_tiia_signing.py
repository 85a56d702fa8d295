"""Signed requests of TIIA, against those of the vendor's own client."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from tencentcloud import common
from tencentcloud.common import abstract_client
from tencentcloud.common.credential import Credential
from tencentcloud.common.http.request import RequestInternal
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.tiia.v20190529.tiia_client import TiiaClient

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import Payload
from airflow_imagetag.services.tiia.detect_label import DetectLabel, DetectLabelPro
from airflow_imagetag.services.tiia.role_keys import Keys, RoleKeys
from airflow_imagetag.services.tiia.signing import Signer
from airflow_imagetag.testing import Emulator

KEY = "5ecre7Key"
ACCOUNT = Account("", "AKIDlogin", KEY, "https://tiia.tencentcloudapi.com", api="DetectLabelPro")
SECONDS = 1767225599.9
"""The last second of a day in UTC, so that a local date would be another in most zones."""


def by_the_sdk(
    action: str,
    account: Account,
    parameters: dict[str, Any],
    host: str,
    *,
    is_payload_signed: bool = True,
) -> Any:
    """Return the request that the vendor's client would send."""
    profile = ClientProfile(httpProfile=HttpProfile(endpoint=host))
    profile.unsignedPayload = not is_payload_signed
    keys = Credential(account.secret_id, account.secret_key, account.token)
    client = TiiaClient(keys, account.region, profile)
    request = RequestInternal(host, "POST", "/", header={})
    client._build_req_inter(action, parameters, request)
    return request


@pytest.mark.parametrize("endpoint", ["https://tiia.tencentcloudapi.com", "http://127.0.0.1:8080"])
@pytest.mark.parametrize("token", [None, "7emporary"])
@pytest.mark.parametrize(
    ("service", "payload", "parameters"),
    [
        (DetectLabelPro, Payload(url="https://h/é.jpg"), {"ImageUrl": "https://h/é.jpg"}),
        (DetectLabelPro, Payload(content=b"\xff\xd8"), {"ImageBase64": "/9g="}),
        (DetectLabel, Payload(content=b"\xff\xd8"), {"ImageBase64": "/9g=", "Scenes": ["WEB"]}),
    ],
)
def test_a_request_is_what_the_sdk_would_send(
    service, payload, parameters, token, endpoint, monkeypatch
):
    """Body and headers are the same byte for byte, without the name of the client."""
    account = dataclasses.replace(
        ACCOUNT, endpoint=endpoint, token=token, region="ap-beijing", api=service.api
    )
    ours = service(account, clock=lambda: SECONDS).build(payload)
    monkeypatch.setattr(abstract_client, "time", SimpleNamespace(time=lambda: SECONDS))
    theirs = by_the_sdk(service.api, account, parameters, endpoint.partition("//")[2])
    assert ours.url == f"{endpoint}/"
    assert ours.joined() == theirs.data.encode()
    # It names the vendor's own client.
    theirs.header.pop("X-TC-RequestClient")
    assert dict(ours.headers) == theirs.header
    assert "/2025-12-31/tiia/tc3_request" in ours.headers["Authorization"]
    assert ours.headers.get("X-TC-Token") == token


@pytest.mark.parametrize("is_payload_signed", [True, False])
def test_each_request_has_its_own_second(is_payload_signed):
    """No signature is used in a later second, so a long run does not outlive it."""
    now = [SECONDS]
    account = dataclasses.replace(ACCOUNT, sign_payload=is_payload_signed)
    signer = Signer(account, "DetectLabelPro", clock=lambda: now[0])
    first = signer.sign(b"{}").headers
    now[0] += 86400
    second = signer.sign(b"{}").headers
    assert int(second["X-TC-Timestamp"]) - int(first["X-TC-Timestamp"]) == 86400
    assert "/2026-01-01/" in second["Authorization"]


def test_unsigned_bodies_of_one_second_share_their_headers_until_the_keys_change():
    """The signature covers neither the body nor anything else that differs."""
    account = dataclasses.replace(ACCOUNT, sign_payload=False, token="first")
    signer = Signer(account, "DetectLabelPro", clock=lambda: SECONDS)
    first, second = signer.sign(b"{}"), signer.sign(b'{"a": 1}')
    assert second.headers is first.headers
    assert second.body != first.body
    signer._keys = Keys("AKIDother", "other", "renewed")
    renewed = signer.sign(b"{}").headers
    assert renewed["X-TC-Token"] == "renewed"
    assert "AKIDother" in renewed["Authorization"]


def test_signing_logs_nothing_secret(caplog):
    """With every logger at level DEBUG, no record has key, signature or image."""
    caplog.set_level(logging.DEBUG)
    for name in ("", "tencentcloud_sdk_common", "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    request = DetectLabelPro(ACCOUNT).build(Payload(url="https://host/a?sig=5ecre7"))
    assert "5ecre7" not in caplog.text
    assert request.headers["Authorization"] not in caplog.text


def test_a_body_that_is_not_signed(monkeypatch):
    """Asked to leave it out, the header says so, and the signature is the SDK's."""
    account = dataclasses.replace(ACCOUNT, sign_payload=False)
    signer = Signer(account, "DetectLabelPro", clock=lambda: SECONDS)
    ours = signer.sign(b"{}").headers
    monkeypatch.setattr(abstract_client, "time", SimpleNamespace(time=lambda: SECONDS))
    host = ACCOUNT.endpoint.partition("//")[2]
    theirs = by_the_sdk("DetectLabelPro", ACCOUNT, {}, host, is_payload_signed=False).header
    assert ours["X-TC-Content-SHA256"] == theirs["X-TC-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    assert ours["Authorization"] == theirs["Authorization"]


@pytest.mark.parametrize("is_payload_signed", [True, False])
def test_the_emulator_accepts_the_signature(is_payload_signed):
    """A real server checks it, with a check of its own, and refuses only the empty image."""
    with Emulator(secret_id="AKIDlogin", secret_key=KEY) as emulator:
        account = dataclasses.replace(
            ACCOUNT, endpoint=emulator.url, sign_payload=is_payload_signed
        )
        request = Signer(account, "DetectLabelPro").sign((b'{"ImageBase64"', b': ""}'))
        sent = requests.post(
            request.url, request.joined(), headers=dict(request.headers), timeout=10
        )
    assert not sent.json()["Response"]["Error"]["Code"].startswith("AuthFailure")


WITHOUT_SDK = """
import sys

class NoSdk:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tencentcloud":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoSdk())
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.messages import Payload
from airflow_imagetag.services.registry import find_service
from airflow_imagetag.services.tiia.detect_label import DetectLabelPro

def parse(api, **extra):
    return parse_account(
        conn_id="c", login="i", password="k", host=None, port=None, schema=None,
        extra={"api": api, "app_id": "1", **extra}, find_service=find_service,
    )

for api in ("picture_classify", "imagetag_detect", "DetectLabelPro", "DetectLabel"):
    service = find_service(api)(parse(api))
    assert not service.needs_io
    assert service.build(Payload(content=b"x")).headers["Authorization"]
assert "tencentcloud" not in sys.modules
role = Account("", "", "", api="DetectLabelPro", credentials="cvm_role")
for attempt in (
    lambda: parse("DetectLabelPro", credentials="cvm_role"),
    lambda: parse("DetectLabel", credentials="tke_oidc"),
    lambda: DetectLabelPro(role).build_probe(),
):
    try:
        attempt()
    except ConfigurationError as error:
        print(error.message)
"""


def test_without_the_sdk_keys_work_and_roles_name_the_extra():
    """The connection says so before anything is read; keys need no SDK with any interface."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SDK], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("pip install 'airflow-provider-imagetag[roles]'" in line for line in lines)
    assert lines[0].startswith("Connection 'c': credentials 'cvm_role' in extra needs")
    assert lines[1].startswith("Connection 'c': credentials 'tke_oidc' in extra needs")
    assert lines[2].startswith("Credentials 'cvm_role' in extra needs")


@pytest.mark.parametrize("module", ["credential", "exception"])
def test_a_broken_sdk_is_a_configuration_error(module, monkeypatch):
    """A package that is there in part is reported like one that is not there."""
    monkeypatch.setitem(sys.modules, f"tencentcloud.common.{module}", None)
    monkeypatch.delattr(common, module)
    with pytest.raises(ConfigurationError, match=r"\[roles\]"):
        RoleKeys(dataclasses.replace(ACCOUNT, credentials="cvm_role")).current()


PARSES = """
import sys
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.registry import find_service

for extra in ({}, {"credentials": "cvm_role"}):
    account = parse_account(
        conn_id="c", login="i", password="k", host=None, port=None, schema=None,
        extra={"api": "DetectLabel", **extra}, find_service=find_service,
    )
    find_service(account.api)(account)
print([name for name in sys.modules if name.startswith("tencentcloud.")])
"""


def test_parsing_a_connection_does_not_import_the_sdk():
    """It takes a good part of a second, which only a task that asks for keys needs to spend."""
    done = subprocess.run(
        [sys.executable, "-c", PARSES], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
