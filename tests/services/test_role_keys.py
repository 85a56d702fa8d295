"""Keys of roles: asked for, renewed, waited for no longer than a request, and never shown."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from key_servers import (
    TEMPORARY_KEY,
    TOKEN,
    KeyServer,
    metadata_answer,
    running_key_server,
    sts_answer,
    sts_error,
)
from tencentcloud.common import credential

from airflow_imagetag.errors import AuthenticationError, ConnectionFailedError, ImageTagError
from airflow_imagetag.models import TagResult
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import Payload
from airflow_imagetag.services.tiia.detect_label import DetectLabelPro
from airflow_imagetag.services.tiia.role_keys import RENEWAL_SECONDS, Keys, RoleKeys
from airflow_imagetag.testing import Emulator

LONG_KEY = "5ecre7LongKey"
CVM = Account(
    "", "", "", "http://gateway", api="DetectLabelPro", credentials="cvm_role", timeout_seconds=5
)
STS = dataclasses.replace(
    CVM,
    secret_id="AKIDlong",
    secret_key=LONG_KEY,
    credentials="assume_role",
    role="qcs::cam::uin/100000000001:roleName/labeller",
)
TKE = dataclasses.replace(CVM, credentials="tke_oidc")
TEMPORARY = Keys("AKIDtemporary", TEMPORARY_KEY, TOKEN)
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Make a clock."""
    return Clock()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    """Run the metadata server of a machine with a role, which is STS as well."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with running_key_server() as (state, url):
        state.answer = metadata_answer
        roles = f"{url}/latest/meta-data/cam/security-credentials/"
        monkeypatch.setattr(credential.CVMRoleCredential, "_role_endpoint", roles)
        monkeypatch.setattr(credential.STSAssumeRoleCredential, "_endpoint", url)
        monkeypatch.setattr(credential.OIDCRoleArnCredential, "_endpoint", url)
        yield state


def give_up(keys: RoleKeys) -> ImageTagError:
    """Return the error that asking for keys ends with."""
    with pytest.raises(ImageTagError) as caught:
        keys.current()
    assert LONG_KEY not in caught.value.message
    assert TOKEN not in caught.value.message
    return caught.value


@pytest.mark.parametrize("role", [None, "labeller"])
def test_the_role_of_a_machine(server, role):
    """Named or not, the metadata server gives its keys, and a request is signed with them."""
    account = dataclasses.replace(CVM, role=role)
    service = DetectLabelPro(account)
    needed_at_first = service.needs_io
    headers = service.build(Payload(url="https://host/a.jpg")).headers
    assert (needed_at_first, service.needs_io) == (True, False)
    assert headers["X-TC-Token"] == TOKEN
    assert "Credential=AKIDtemporary/" in headers["Authorization"]
    assert len(server.requests) == (1 if role else 2)


def test_a_role_that_is_assumed(server):
    """STS is asked with the connection's keys, for the role by its ARN."""
    server.answer = sts_answer
    assert RoleKeys(STS).current() == TEMPORARY
    [(path, body)] = server.requests
    assert path == "/"
    assert body["RoleArn"] == STS.role
    assert body["RoleSessionName"] == "airflow-provider-imagetag"


def test_the_role_of_a_pod(server, monkeypatch, tmp_path):
    """The environment of the pod names the role, and a file holds the token that is exchanged."""
    server.answer = sts_answer
    (tmp_path / "token").write_text("web-identity")
    monkeypatch.setenv("TKE_REGION", "ap-beijing")
    monkeypatch.setenv("TKE_PROVIDER_ID", "provider")
    monkeypatch.setenv("TKE_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TKE_ROLE_ARN", "qcs::cam::uin/1:roleName/pod")
    assert RoleKeys(TKE).current() == TEMPORARY
    [(_, body)] = server.requests
    assert body["WebIdentityToken"] == "web-identity"
    assert body["RoleArn"] == "qcs::cam::uin/1:roleName/pod"


def test_a_pod_without_a_role(monkeypatch):
    """The variable that is missing is named."""
    monkeypatch.delenv("TKE_REGION", raising=False)
    error = give_up(RoleKeys(TKE))
    assert isinstance(error, AuthenticationError)
    assert "TKE_REGION" in error.message
    assert "'tke_oidc'" in error.message


def test_a_pod_without_its_token_file(monkeypatch, tmp_path):
    """The file that is missing is named."""
    monkeypatch.setenv("TKE_REGION", "ap-beijing")
    monkeypatch.setenv("TKE_PROVIDER_ID", "provider")
    monkeypatch.setenv("TKE_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    error = give_up(RoleKeys(TKE))
    assert isinstance(error, AuthenticationError)
    assert str(tmp_path / "token") in error.message


@pytest.mark.parametrize("answer", ["", "no JSON", {"Code": "Failed"}, {"Code": "Success"}])
def test_a_machine_without_a_role(server, answer):
    """The SDK does not tell it from a server that fails once, so it is asked again, in words."""
    server.answer = lambda path, body: answer
    error = give_up(RoleKeys(CVM))
    assert type(error) is ConnectionFailedError
    assert "no such role, or its metadata server does not answer" in error.message
    assert "Check credentials and role in the connection's extra" in error.message


def test_a_machine_without_a_metadata_server(server, monkeypatch):
    """A closed port is an error at once, not a traceback of the SDK."""
    with running_key_server() as (_, url):
        pass
    monkeypatch.setattr(credential.CVMRoleCredential, "_role_endpoint", f"{url}/")
    assert isinstance(give_up(RoleKeys(CVM)), ConnectionFailedError)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("AuthFailure.SecretIdNotFound", AuthenticationError),
        ("UnauthorizedOperation", AuthenticationError),
        ("InvalidParameter.RoleNotExist", AuthenticationError),
        ("InternalError.SystemError", ConnectionFailedError),
        ("RequestLimitExceeded", ConnectionFailedError),
    ],
)
def test_sts_refuses(server, code, expected):
    """Trouble of STS is retried; all else is the connection's fault; the code is told."""
    server.answer = sts_error(code)
    error = give_up(RoleKeys(STS))
    assert type(error) is expected
    assert code in error.message


@pytest.mark.parametrize("answer", ["no JSON", {}, {"Response": {}}, {"Response": None}, []])
def test_sts_answers_something_else(server, answer):
    """An answer that the SDK does not understand is an error of ours that is retried."""
    server.answer = lambda path, body: answer
    assert isinstance(give_up(RoleKeys(STS)), ConnectionFailedError)


def test_sts_is_out_of_reach(server, monkeypatch):
    """No connection, or a gateway's error: nothing was sent to the label service."""
    server.status = 502
    assert "ServerNetworkError" in give_up(RoleKeys(STS)).message
    with running_key_server() as (_, url):
        pass
    monkeypatch.setattr(credential.STSAssumeRoleCredential, "_endpoint", url)
    error = give_up(RoleKeys(STS))
    assert isinstance(error, ConnectionFailedError)
    assert "ClientNetworkError" in error.message


def test_keys_are_used_for_a_while_before_the_sdk_is_asked_again(server, clock):
    """The SDK renews keys minutes before their end, so it need not be asked for each request."""
    keys = RoleKeys(CVM, clock=clock)
    at_hand = [keys.at_hand]
    keys.current()
    at_hand.append(keys.at_hand)
    clock.now += RENEWAL_SECONDS - 1
    keys.current()
    at_hand.append(keys.at_hand)
    clock.now += 1
    at_hand.append(keys.at_hand)
    keys.current()
    at_hand.append(keys.at_hand)
    assert at_hand == [False, True, True, False, True]
    assert len(server.requests) == 2, "the SDK still holds keys for an hour"


def test_keys_that_end_soon_are_replaced(server, clock):
    """The next ones are those that the server gives out then."""
    server.answer = lambda path, body: metadata_answer(path, body, seconds=200)
    keys = RoleKeys(dataclasses.replace(CVM, role="labeller"), clock=clock)
    keys.current()
    server.answer = lambda path, body: metadata_answer(path, body) | {"TmpSecretId": "AKIDnext"}
    clock.now += RENEWAL_SECONDS
    assert keys.current().secret_id == "AKIDnext"


def test_a_server_that_hangs_is_not_waited_for_longer_than_for_a_request(server):
    """The SDK would wait for ever; the next try asks anew, and finds the server back."""
    keys = RoleKeys(dataclasses.replace(CVM, timeout_seconds=0.3))
    server.goes_on.clear()
    error = give_up(keys)
    assert isinstance(error, ConnectionFailedError)
    assert "0.3 seconds" in error.message
    assert not server.goes_on.is_set(), "the server still hangs"
    server.goes_on.set()
    assert RoleKeys(CVM).current() == TEMPORARY
    keys._account = CVM
    assert keys.current() == TEMPORARY


def test_the_last_keys_stay_in_use_while_the_server_is_away(server, clock, caplog):
    """A short outage in mid-run costs no image; it is logged once, without a secret."""
    server.answer = sts_answer
    keys = RoleKeys(STS, clock=clock)
    keys.current()
    keys._credential._expired_time = 0
    server.answer = sts_error("InternalError")
    clock.now += RENEWAL_SECONDS
    assert keys.current() == TEMPORARY
    assert keys.at_hand
    assert keys.current() == TEMPORARY
    [record] = [record for record in caplog.records if record.name.startswith("airflow_imagetag")]
    assert record.levelno == logging.WARNING
    assert "InternalError" in record.getMessage()
    server.answer = sts_answer
    clock.now += RENEWAL_SECONDS
    assert keys.current() == TEMPORARY
    assert len(server.requests) == 3


def test_the_last_keys_stay_in_use_while_the_server_hangs(server, clock):
    """One stall of a request's timeout, and then not again for a while."""
    keys = RoleKeys(CVM, clock=clock)
    keys.current()
    keys._account = dataclasses.replace(CVM, timeout_seconds=1)
    keys._credential._expired_ts = 0
    server.goes_on.clear()
    clock.now += RENEWAL_SECONDS
    assert keys.current() == TEMPORARY
    asked = len(server.requests)
    assert keys.at_hand
    assert keys.current() == TEMPORARY
    assert len(server.requests) == asked


def test_many_at_once_ask_once(server):
    """Requests that start together wait for the same answer."""
    keys = RoleKeys(dataclasses.replace(CVM, role="labeller"))
    server.goes_on.clear()
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(keys.current) for _ in range(8)]
        server.asked.wait(20)
        server.goes_on.set()
        assert {future.result(10) for future in found} == {TEMPORARY}
    assert len(server.requests) == 1


def test_many_at_once_fail_once(server, caplog):
    """They share the error, too."""
    keys = RoleKeys(dataclasses.replace(CVM, role="labeller", timeout_seconds=0.3))
    server.goes_on.clear()
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(keys.current) for _ in range(8)]
        errors = {type(future.exception(10)) for future in found}
    assert errors == {ConnectionFailedError}


def test_the_event_loop_goes_on_while_keys_are_asked_for(server, small_jpegs, monkeypatch):
    """The first request, of a small image too, is built in a thread while its keys come."""
    from airflow_imagetag.hooks.imagetag import ImageTagHook

    async def label() -> TagResult:
        call = asyncio.create_task(ImageTagHook().atag(small_jpegs(1)[0]))
        await asyncio.to_thread(server.asked.wait, 20)
        for _ in range(50):
            await asyncio.sleep(0.01)
        assert not call.done(), "a loop that waits for the keys goes on when their time is over"
        server.goes_on.set()
        return await call

    with Emulator(secret_id="AKIDtemporary", secret_key=TEMPORARY_KEY, token=TOKEN) as emulator:
        fields = json.loads(emulator.connection_json_for("DetectLabelPro"))
        extra = {"api": "DetectLabelPro", "credentials": "cvm_role"}
        changed = fields | {"login": "", "password": "", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(changed))
        server.goes_on.clear()
        assert asyncio.run(label()).labels


@pytest.mark.parametrize("account", [CVM, STS], ids=["cvm", "sts"])
def test_questions_and_answers_are_not_logged(server, account, caplog):
    """The SDK logs requests and answers, keys included; the records of our thread are dropped."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="tencentcloud_sdk_common")
    server.answer = sts_answer if account is STS else metadata_answer
    RoleKeys(account).current()
    server.answer = sts_error("AuthFailure")
    if account is STS:
        give_up(RoleKeys(account))
    assert TEMPORARY_KEY not in caplog.text
    assert TOKEN not in caplog.text
    assert LONG_KEY not in caplog.text
    sdk = logging.getLogger("tencentcloud_sdk_common")
    assert not sdk.filters
    sdk.debug("of another thread")
    assert "of another thread" in caplog.text


def test_no_repr_shows_a_key(server):
    """Neither that of the keys nor that of the object which holds them."""
    keys = RoleKeys(CVM)
    shown = repr((keys.current(), keys, vars(keys)))
    assert TEMPORARY_KEY not in shown
    assert TOKEN not in shown
    assert "AKIDtemporary" not in shown


def test_the_thread_that_asks_ends():
    """Nothing is left behind by an asking that was answered."""
    before = threading.active_count()
    with pytest.raises(AuthenticationError):
        RoleKeys(dataclasses.replace(TKE)).current()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
