"""Signed requests of TIIA, against what the vendor's own client would send."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
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
from airflow_imagetag.services.tiia.signing import Signer

KEY = "5ecre7Key"
ACCOUNT = Account("", "AKIDlogin", KEY, "https://tiia.tencentcloudapi.com", api="DetectLabelPro")
SECONDS = 1767225599.9
"""The last second of a day in UTC, so that a local date would be another in most zones."""


def by_the_sdk(action: str, account: Account, parameters: dict[str, Any], host: str) -> Any:
    """Return the request that the vendor's client would send."""
    profile = ClientProfile(httpProfile=HttpProfile(endpoint=host))
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
    """Body and headers are the same byte for byte, signature, token and port included."""
    account = dataclasses.replace(
        ACCOUNT, endpoint=endpoint, token=token, region="ap-beijing", api=service.api
    )
    ours = service(account, clock=lambda: SECONDS).build(payload)
    monkeypatch.setattr(abstract_client, "time", SimpleNamespace(time=lambda: SECONDS))
    theirs = by_the_sdk(service.api, account, parameters, endpoint.partition("//")[2])
    assert ours.url == f"{endpoint}/"
    assert ours.body == theirs.data.encode()
    assert dict(ours.headers) == theirs.header
    assert "/2025-12-31/tiia/tc3_request" in ours.headers["Authorization"]
    assert ours.headers.get("X-TC-Token") == token


def test_each_request_has_its_own_second():
    """A signature is never used twice, so a long run does not outlive it."""
    now = [SECONDS]
    signer = Signer(ACCOUNT, "DetectLabelPro", clock=lambda: now[0])
    first = signer.sign(b"{}").headers
    now[0] += 86400
    second = signer.sign(b"{}").headers
    assert int(second["X-TC-Timestamp"]) - int(first["X-TC-Timestamp"]) == 86400
    assert "/2026-01-01/" in second["Authorization"]


def test_signing_logs_nothing_secret(caplog):
    """With every logger at its most talkative, nobody writes key, signature or image."""
    caplog.set_level(logging.DEBUG)
    for name in ("", "tencentcloud_sdk_common", "urllib3"):
        caplog.set_level(logging.DEBUG, logger=name)
    request = DetectLabelPro(ACCOUNT).build(Payload(url="https://host/a?sig=5ecre7"))
    assert "5ecre7" not in caplog.text
    assert request.headers["Authorization"] not in caplog.text


WITHOUT_SDK = """
import sys

class NoSdk:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tencentcloud":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoSdk())
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import Account, parse_account
from airflow_imagetag.services.registry import find_service
from airflow_imagetag.services.tiia.detect_label import DetectLabelPro

def parse(api):
    return parse_account(
        conn_id="c", login="i", password="k", host=None, port=None, schema=None,
        extra={"api": api, "app_id": "1"}, find_service=find_service,
    )

assert parse("picture_classify").api == "picture_classify"
for attempt in (
    lambda: parse("DetectLabelPro"),
    lambda: parse("DetectLabel"),
    lambda: DetectLabelPro(Account("", "i", "k", api="DetectLabelPro")).build_probe(),
):
    try:
        attempt()
    except ConfigurationError as error:
        print(error.message)
"""


def test_without_the_sdk_the_extra_is_named():
    """The connection says so before anything is read; the other interfaces work without it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SDK], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("airflow-provider-imagetag[tiia]" in line for line in lines)
    assert lines[0].startswith("Connection 'c': this api needs")
    assert lines[2].startswith("This api needs")


def test_a_broken_sdk_is_a_configuration_error(monkeypatch):
    """A package that is there in part is reported like one that is not there."""
    monkeypatch.setitem(sys.modules, "tencentcloud.tiia.v20190529.tiia_client", None)
    with pytest.raises(ConfigurationError, match=r"\[tiia\]"):
        Signer(ACCOUNT, "DetectLabelPro").sign(b"{}")


def test_parsing_a_connection_does_not_import_the_sdk():
    """It takes a good part of a second, which only a task that sends needs to spend."""
    code = WITHOUT_SDK.partition("assert parse(")[0].replace("sys.meta_path.insert(0, NoSdk())", "")
    code += "parse('DetectLabel')\nprint([m for m in sys.modules if 'tencentcloud.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.replace("'", '"')))
    assert not any(name.startswith("tencentcloud.tiia.") for name in imported)
    assert not any(name.startswith("tencentcloud.common") for name in imported)
