"""The hook over each interface of the service."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection, redact

from airflow_imagetag import errors
from airflow_imagetag.backends.accounts import account_of
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.testing import Emulator, Faults

VARIABLE = "AIRFLOW_CONN_IMAGETAG_DEFAULT"
KEY = "5ecre7KeyOfTheEmulator0000000000"
TOKEN = "7emporaryTokenOfTheEmulator"
TIIA = ("DetectLabelPro", "DetectLabel")
ALL = ("picture_classify", "imagetag_detect", *TIIA)


@pytest.fixture(params=ALL)
def api(request: pytest.FixtureRequest) -> str:
    """Return each interface."""
    return request.param


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator."""
    with Emulator(secret_key=KEY) as running:
        yield running


def connect(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, api: Any, **changes: Any) -> None:
    """Make the emulator ``imagetag_default``, with some fields changed and extras added."""
    fields = json.loads(emulator.connection_json_for(api))
    fields["extra"] = {**fields["extra"], **changes.pop("extra", {})}
    monkeypatch.setenv(VARIABLE, json.dumps({**fields, **changes}))


def atag(image: Any) -> Any:
    """Label in an event loop."""
    return asyncio.run(ImageTagHook().atag(image))


def tag(image: Any) -> Any:
    """Label with the blocking method."""
    return ImageTagHook().tag(image)


@pytest.mark.parametrize("way", [tag, atag])
def test_every_interface_labels(way, api, emulator, photographs, monkeypatch):
    """Each labels the same photograph; TIIA returns categories and the id of the call."""
    connect(monkeypatch, emulator, api)
    result = way(photographs[0].read_bytes())
    assert result.api == api
    assert result.labels
    assert all(0 <= label.probability <= 1 for label in result.labels)
    assert bool(result.labels[0].category) is (api in TIIA)
    assert {label.scene for label in result.labels} == {"WEB" if api == "DetectLabel" else None}
    assert (result.request_id is not None) is (api in TIIA)
    assert emulator.stats.billed == 1


def test_each_scene_is_billed(emulator, photographs, monkeypatch):
    """One response has the labels of all scenes, and the service bills each scene."""
    extra = {"scenes": "WEB,CAMERA,ALBUM,NEWS"}
    connect(monkeypatch, emulator, "DetectLabel", extra=extra)
    scenes = {label.scene for label in tag(photographs[0].read_bytes()).labels}
    assert scenes == {"WEB", "CAMERA", "ALBUM", "NEWS"}
    assert emulator.stats.billed == 4


@pytest.mark.parametrize("api", TIIA)
def test_temporary_keys(api, photographs, monkeypatch):
    """The token in extra goes with them, and the error of a wrong one names it."""
    with Emulator(secret_key=KEY, token=TOKEN) as emulator:
        connect(monkeypatch, emulator, api)
        assert tag(photographs[0].read_bytes()).labels
        connect(monkeypatch, emulator, api, extra={"token": "wrong"})
        with pytest.raises(errors.AuthenticationError, match="token") as caught:
            tag(photographs[0].read_bytes())
    assert caught.value.code == "AuthFailure.TokenFailure"
    assert caught.value.request_id


def test_a_good_connection_is_not_billed(api, emulator, monkeypatch):
    """Endpoint and signature are proved, and the message names the interface."""
    connect(monkeypatch, emulator, api)
    ok, message = ImageTagHook().test_connection()
    assert ok, message
    assert emulator.url in message
    assert message.endswith(api)
    assert emulator.stats.requests == 1
    assert emulator.stats.billed == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, ["AuthenticationError", "SecretKey"]),
        ({"login": "AKIDwrong"}, ["AuthenticationError", "SecretId"]),
        ({"password": ""}, ["ConfigurationError", "password"]),
        ({"host": "no-such-host.invalid"}, ["ConnectionFailedError", "no-such-host.invalid"]),
        ({"extra": {"region": "Nowhere!"}}, ["ConfigurationError", "region"]),
    ],
)
def test_a_bad_connection(api, emulator, changes, words, monkeypatch):
    """The message names the error and the field to check, without a key; nothing is billed."""
    connect(monkeypatch, emulator, api, **changes)
    ok, message = ImageTagHook().test_connection()
    assert not ok
    assert all(word in message for word in words), message
    assert KEY not in message
    assert emulator.stats.billed == 0


@pytest.mark.parametrize("api", TIIA)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("FailedOperation.UnOpenError", ["AuthenticationError", "has not opened the service"]),
        ("ResourceUnavailable.InArrears", ["AuthenticationError", "cannot be billed"]),
        ("UnauthorizedOperation", ["AuthenticationError", "policies"]),
        ("UnsupportedRegion", ["EndpointError", "region"]),
        ("FailedOperation.Anew", ["UnknownCodeError", "FailedOperation.Anew"]),
    ],
)
def test_an_account_without_the_service(api, code, words, emulator, monkeypatch):
    """The test of the connection tells a service that is not opened, or not in the region."""
    connect(monkeypatch, emulator, api)
    emulator.faults = Faults(error_codes={code: 1})
    ok, message = ImageTagHook().test_connection()
    assert not ok
    assert all(word in message for word in words), message


@pytest.mark.parametrize("api", TIIA)
def test_the_endpoint_of_the_older_service(api, emulator, monkeypatch):
    """The error of a host without the newer interface is not that of a wrong key."""
    connect(monkeypatch, emulator, "picture_classify", extra={"api": api})
    emulator.faults = Faults(error_rates={404: 1})
    ok, message = ImageTagHook().test_connection()
    assert not ok
    assert "EndpointError" in message


def test_airflow_masks_the_secrets_of_the_extra():
    """Token and proxy are asterisks in logs once the account was read.

    Airflow does this by itself for a connection from a variable, and not for one of its database.
    """
    token, proxy = "7okenOfTheDatabase", "http://user:5ecre7OfTheProxy@proxy.invalid:3128"
    extra = json.dumps({"api": "DetectLabelPro", "token": token, "proxy": proxy})
    connection = Connection(
        conn_id="imagetag_default",
        conn_type="imagetag",
        login="AKIDlogin",
        password=KEY,
        extra=extra,
    )
    assert token in redact(f"token {token}")
    assert account_of(connection).token == token
    assert redact(f"token {token}, proxy {proxy}") == "token ***, proxy ***"


@pytest.mark.parametrize("faults", [None, Faults(garbage_rate=1), Faults(drop_rate=1)])
@pytest.mark.parametrize("api", TIIA)
def test_no_secret_is_shown(api, faults, photographs, caplog, monkeypatch):
    """No log record, error, result or repr has the key, the token or the signature."""
    caplog.set_level(logging.DEBUG)
    with Emulator(secret_key=KEY, token=TOKEN, faults=faults) as emulator:
        connect(monkeypatch, emulator, api)
        hook = ImageTagHook()
        shown = [str(hook.test_connection()), repr(hook.account), repr(vars(hook.codec))]
        try:
            shown.append(repr(hook.tag(photographs[0].read_bytes())))
        except errors.ImageTagError as error:
            shown.append(f"{error!r} {error} {vars(error)}")
        signature = hook.codec.probe().headers["Authorization"].rpartition("=")[2]
    shown += [f"{record.getMessage()} {record.args!r}" for record in caplog.records]
    for secret in (KEY, TOKEN, signature):
        assert not [text for text in shown if secret in text]
