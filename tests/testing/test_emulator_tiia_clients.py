"""TIIA with the vendor's own unchanged clients, the blocking one and the asyncio one."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.tiia.v20190529 import models
from tencentcloud.tiia.v20190529.tiia_client import TiiaClient
from tencentcloud.tiia.v20190529.tiia_client_async import TiiaClient as AsyncTiiaClient

from airflow_imagetag.testing import Emulator, Faults

SECRET_ID = "AKIDemulator0000000000000000000000"
SECRET_KEY = "emulatorSecretKey000000000000000"

Call = Callable[..., Any]

# The clients date their signatures with a function that newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp")


def profile_of(emulator: Emulator) -> ClientProfile:
    """Point a client at the emulator."""
    http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{emulator.port}", reqTimeout=10)
    return ClientProfile(httpProfile=http)


def caller(
    kind: str,
    emulator: Emulator,
    *,
    key: tuple[str, ...] = (SECRET_ID, SECRET_KEY),
    region: str = "ap-guangzhou",
    profile: ClientProfile | None = None,
) -> Call:
    """Return a function that makes one call with one of the vendor's clients."""
    profile = profile or profile_of(emulator)

    def call(action: str, **parameters: Any) -> Any:
        request = getattr(models, f"{action}Request")()
        for name, value in parameters.items():
            setattr(request, name, value)
        if kind == "blocking":
            return getattr(TiiaClient(Credential(*key), region, profile), action)(request)
        return asyncio.run(in_asyncio(action, request))

    async def in_asyncio(action: str, request: Any) -> Any:
        async with AsyncTiiaClient(Credential(*key), region, profile) as client:
            return await getattr(client, action)(request)

    return call


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    """Take each of the two clients in turn."""
    return request.param


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach this machine directly."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def vendor(kind: str, emulator: Emulator) -> Call:
    """Make calls with the emulator's account."""
    return caller(kind, emulator)


@pytest.fixture(scope="session")
def photograph_base64(photograph: bytes) -> str:
    """Encode the photograph."""
    return base64.b64encode(photograph).decode()


@pytest.fixture
def photograph_url(photographs, serve_folder) -> Iterator[str]:
    """Serve the photograph."""
    with serve_folder(photographs) as url:
        yield f"{url}/rocket.jpg"


def plain(items: list[models.DetectLabelItem]) -> list[tuple[Any, ...]]:
    """Return the fields of labels as tuples."""
    return [(i.Name, i.Confidence, i.FirstCategory, i.SecondCategory) for i in items]


def code_of(call: Call, *args: Any, **kwargs: Any) -> str:
    """Return the code of the error that the client raises, which has a request id."""
    with pytest.raises(TencentCloudSDKException) as caught:
        call(*args, **kwargs)
    assert str(uuid.UUID(caught.value.requestId)) == caught.value.requestId
    assert caught.value.message
    return caught.value.code


def test_detect_label_pro(vendor, emulator, photograph_base64, photograph_url):
    """Base64 and URL get the same labels, most certain first, with categories and a request id."""
    answers = [
        vendor("DetectLabelPro", ImageBase64=photograph_base64),
        vendor("DetectLabelPro", ImageUrl=photograph_url),
    ]
    labels = plain(answers[0].Labels)
    assert labels == plain(answers[1].Labels)
    assert uuid.UUID(answers[0].RequestId) != uuid.UUID(answers[1].RequestId)
    confidences = [confidence for _, confidence, _, _ in labels]
    assert all(isinstance(confidence, int) for confidence in confidences)
    assert confidences == sorted(confidences, reverse=True)
    assert 0 <= confidences[-1] <= confidences[0] <= 100
    assert ("Blue", "Colour", "Hue") in {(name, *pair) for name, _, *pair in labels}
    assert emulator.stats.by_api == emulator.stats.billed_by_api == {"DetectLabelPro": 2}


def test_labels_are_those_of_v2_in_percent(vendor, client, photograph, photograph_base64):
    """All protocols give the same labels."""
    [group] = client.base64(photograph).json()["data"]
    labels = plain(vendor("DetectLabelPro", ImageBase64=photograph_base64).Labels)
    assert [label[:2] for label in labels] == [
        (item["label_name"], round(100 * item["probability"])) for item in group["items"]
    ]


def test_url_wins(vendor, photograph_url, small_images):
    """When both are given the service uses the URL."""
    other = base64.b64encode(small_images[0]).decode()
    both = vendor("DetectLabelPro", ImageUrl=photograph_url, ImageBase64=other)
    assert plain(both.Labels) == plain(vendor("DetectLabelPro", ImageUrl=photograph_url).Labels)


def test_wrong_keys(kind, emulator, photograph_base64):
    """A key that is not the account's is refused with its code, counted and not billed."""
    for key, code in (
        (("AKIDother", SECRET_KEY), "AuthFailure.SecretIdNotFound"),
        ((SECRET_ID, "another key"), "AuthFailure.SignatureFailure"),
        ((SECRET_ID, SECRET_KEY, "token"), "AuthFailure.TokenFailure"),
    ):
        call = caller(kind, emulator, key=key)
        assert code_of(call, "DetectLabelPro", ImageBase64=photograph_base64) == code
    assert emulator.stats.rejected_signatures == 3
    assert emulator.stats.billed == 0


def test_temporary_keys(kind, photograph_base64):
    """An emulator with a token refuses requests without it."""
    with Emulator(token="temporary") as emulator:
        key = (SECRET_ID, SECRET_KEY, "temporary")
        call = caller(kind, emulator, key=key)
        assert call("DetectLabelPro", ImageBase64=photograph_base64).Labels
        for wrong in ((SECRET_ID, SECRET_KEY), (SECRET_ID, SECRET_KEY, "other")):
            call = caller(kind, emulator, key=wrong)
            code = code_of(call, "DetectLabelPro", ImageBase64=photograph_base64)
            assert code == "AuthFailure.TokenFailure"


def test_an_unsigned_payload(kind, emulator, photograph_base64):
    """A client may leave the body out of the signature."""
    profile = profile_of(emulator)
    profile.unsignedPayload = True
    call = caller(kind, emulator, profile=profile)
    assert call("DetectLabelPro", ImageBase64=photograph_base64).Labels


def test_no_region(kind, emulator, photograph_base64):
    """A client without a region lacks a parameter."""
    call = caller(kind, emulator, region="")
    assert code_of(call, "DetectLabelPro", ImageBase64=photograph_base64) == "MissingParameter"


def test_an_unknown_action(vendor):
    """The emulator knows two of the product's actions."""
    assert code_of(vendor, "DetectPet", ImageBase64="AAAA") == "InvalidAction"


def test_the_quota(vendor, emulator, photograph_base64):
    """Over the quota the answer has status 200 and a code of its own."""
    emulator.faults = Faults(requests_per_second=0.1)
    assert vendor("DetectLabelPro", ImageBase64=photograph_base64).Labels
    code = code_of(vendor, "DetectLabelPro", ImageBase64=photograph_base64)
    assert code == "RequestLimitExceeded"
    stats = emulator.stats
    assert (stats.over_limit, stats.billed, dict(stats.by_status)) == (1, 1, {200: 2})
    assert stats.by_code == {0: 1, "RequestLimitExceeded": 1}


def test_an_injected_status(vendor, emulator, photograph_base64):
    """An injected HTTP status reaches the client as an error that is not the service's."""
    emulator.faults = Faults(first_attempts={503: 1.0})
    with pytest.raises(TencentCloudSDKException) as caught:
        vendor("DetectLabelPro", ImageBase64=photograph_base64)
    assert caught.value.code == "ServerNetworkError"
    assert vendor("DetectLabelPro", ImageBase64=photograph_base64).Labels


@pytest.mark.parametrize("field", ["error_codes", "first_attempt_codes"])
def test_an_injected_code(vendor, emulator, photograph_base64, field):
    """Any code of TIIA can be injected, at random or for an image's first attempt."""
    faults: dict[str, Any] = {field: {"FailedOperation.RpcFail": 1.0}}
    emulator.faults = Faults(**faults)
    code = code_of(vendor, "DetectLabelPro", ImageBase64=photograph_base64)
    assert code == "FailedOperation.RpcFail"
    assert emulator.stats.by_code == {"FailedOperation.RpcFail": 1}
    assert emulator.stats.billed == 0
    if field == "first_attempt_codes":
        assert vendor("DetectLabelPro", ImageBase64=photograph_base64).Labels


def test_a_dropped_answer(vendor, emulator, photograph_base64):
    """A connection that closes after the work is billed, once for each scene."""
    emulator.faults = Faults(drop_after_work_rate=1.0)
    with pytest.raises(Exception, match=r"(?i)disconnect|aborted"):
        vendor("DetectLabel", ImageBase64=photograph_base64, Scenes=["WEB", "NEWS"])
    stats = emulator.stats
    assert (stats.dropped, stats.billed, stats.billed_dropped) == (1, 2, 2)


FIELDS = {
    "WEB": "Labels",
    "CAMERA": "CameraLabels",
    "ALBUM": "AlbumLabels",
    "NEWS": "NewsLabels",
}


def test_detect_label_is_for_the_web_by_default(vendor, emulator, photograph_base64):
    """Without scenes, the labels are those of WEB, the same as DetectLabelPro's."""
    answer = vendor("DetectLabel", ImageBase64=photograph_base64)
    pro = vendor("DetectLabelPro", ImageBase64=photograph_base64)
    assert plain(answer.Labels) == plain(pro.Labels)
    assert answer.CameraLabels is answer.AlbumLabels is answer.NewsLabels is None
    assert emulator.stats.billed_by_api == {"DetectLabel": 1, "DetectLabelPro": 1}


@pytest.mark.parametrize("scenes", [["CAMERA"], ["WEB", "NEWS"], list(FIELDS), ["NEWS", "NEWS"]])
def test_detect_label_answers_the_requested_scenes(vendor, emulator, photograph_url, scenes):
    """Each scene has labels in its own field and is billed as a call; other fields are null."""
    answer = vendor("DetectLabel", ImageUrl=photograph_url, Scenes=scenes)
    found = {scene: getattr(answer, field) for scene, field in FIELDS.items()}
    assert {scene for scene, items in found.items() if items} == set(scenes)
    assert {scene for scene, items in found.items() if items is None} == set(FIELDS) - set(scenes)
    different = {str(plain(items)) for items in found.values() if items}
    assert len(different) == len(set(scenes)) == emulator.stats.billed
    assert list(emulator.stats.billed_images.values()) == [len(set(scenes))]


def test_news_have_no_categories(vendor, photograph_base64):
    """The vendor's model for news gives none yet."""
    answer = vendor("DetectLabel", ImageBase64=photograph_base64, Scenes=["NEWS"])
    assert {(item.FirstCategory, item.SecondCategory) for item in answer.NewsLabels} == {("", "")}


def test_unknown_scenes(vendor, emulator, photograph_base64):
    """An unknown scene is refused, and nothing is billed."""
    for scenes in (["MOON"], ["WEB", "web"]):
        code = code_of(vendor, "DetectLabel", ImageBase64=photograph_base64, Scenes=scenes)
        assert code == "InvalidParameterValue.InvalidParameterValueLimit"
    assert emulator.stats.billed == 0
