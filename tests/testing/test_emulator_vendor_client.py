"""V1 with the vendor's own unchanged client."""

from __future__ import annotations

import pytest
import qcloud_image
from qcloud_image.conf import Conf

from airflow_imagetag.testing import Emulator, Faults

APP_ID = "1250000001"
SECRET_ID = "AKIDemulator0000000000000000000000"
SECRET_KEY = "emulatorSecretKey000000000000000"


@pytest.fixture(autouse=True)
def service_address(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the vendor's client, which names the vendor's host, at the emulator."""
    monkeypatch.setattr(Conf, "_Conf__SERVICE_ADDR", f"127.0.0.1:{emulator.port}")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def vendor() -> qcloud_image.Client:
    """Make the vendor's client with the emulator's account."""
    return qcloud_image.Client(APP_ID, SECRET_ID, SECRET_KEY, "bucket")


def test_a_buffer_and_a_url_get_the_same_tags(
    vendor, emulator, photograph, photographs, serve_folder
):
    """A picture in the request and behind a URL get the same labels, in V1's form."""
    with serve_folder(photographs) as url:
        answers = [
            vendor.tag_detect(qcloud_image.CIBuffer(photograph)),
            vendor.tag_detect(qcloud_image.CIUrl(f"{url}/rocket.jpg")),
        ]
    assert answers[0] == answers[1]
    assert answers[0]["httpcode"] == 200
    assert answers[0]["code"] == 0
    assert answers[0]["message"] == "success"
    confidences = [tag["tag_confidence"] for tag in answers[0]["tags"]]
    assert all(isinstance(confidence, int) for confidence in confidences)
    assert confidences == sorted(confidences, reverse=True)
    assert 0 <= confidences[-1] <= confidences[0] <= 100
    assert "Blue" in {tag["tag_name"] for tag in answers[0]["tags"]}
    assert emulator.stats.by_api == emulator.stats.billed_by_api == {"imagetag_detect": 2}


# The vendor's client opens the file and leaves closing it to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_is_labelled(vendor, photograph, tmp_path):
    """A picture named by its path gets the tags of its bytes."""
    file = tmp_path / "rocket.jpg"
    file.write_bytes(photograph)
    assert vendor.tag_detect(qcloud_image.CIFile(file)) == vendor.tag_detect(
        qcloud_image.CIBuffer(photograph)
    )


def test_tags_are_the_labels_of_v2_in_percent(vendor, client, photograph):
    """Both protocols give the same labels."""
    [group] = client.base64(photograph).json()["data"]
    assert vendor.tag_detect(qcloud_image.CIBuffer(photograph))["tags"] == [
        {"tag_name": item["label_name"], "tag_confidence": round(100 * item["probability"])}
        for item in group["items"]
    ]


@pytest.mark.parametrize(
    "account",
    [
        (APP_ID, SECRET_ID, "wrong key"),
        (APP_ID, "AKIDother", SECRET_KEY),
        ("1", SECRET_ID, SECRET_KEY),
    ],
)
def test_wrong_keys_are_refused(emulator, photograph, account):
    """A signature with any wrong part gets 403, and nothing is billed."""
    answer = qcloud_image.Client(*account, "").tag_detect(qcloud_image.CIBuffer(photograph))
    assert answer["httpcode"] == 403
    assert answer["code"] == -1
    assert emulator.stats.rejected_signatures == 1
    assert emulator.stats.billed == 0


def test_a_bucket_that_the_account_does_not_have(monkeypatch, photograph):
    """An emulator with a bucket refuses signatures without it."""
    with Emulator(bucket="mine") as emulator:
        monkeypatch.setattr(Conf, "_Conf__SERVICE_ADDR", f"127.0.0.1:{emulator.port}")
        answers = [
            qcloud_image.Client(APP_ID, SECRET_ID, SECRET_KEY, bucket).tag_detect(
                qcloud_image.CIBuffer(photograph)
            )
            for bucket in ("mine", "yours")
        ]
    assert [answer["httpcode"] for answer in answers] == [200, 403]


def test_bytes_that_are_no_picture(vendor):
    """Bytes that are no image are -1102 in V1."""
    assert vendor.tag_detect(qcloud_image.CIBuffer(b"text"))["code"] == -1102


def test_a_picture_that_cannot_be_downloaded(vendor):
    """A picture whose download fails is -1300 in V1."""
    assert vendor.tag_detect(qcloud_image.CIUrl("http://127.0.0.1:1/a.jpg"))["code"] == -1300


def test_refusals_by_status(vendor, emulator, photograph):
    """The quota's status and an injected one reach the vendor's client."""
    emulator.faults = Faults(requests_per_second=0.1, first_attempts={503: 1.0})
    answers = [vendor.tag_detect(qcloud_image.CIBuffer(photograph)) for _ in range(2)]
    assert [answer["httpcode"] for answer in answers] == [503, 429]
    assert emulator.stats.by_status == {503: 1, 429: 1}
    assert emulator.stats.billed == 0


def test_v1_takes_either_name_of_the_account_and_no_form(client, photograph):
    """V1 reads appid and app_id, and refuses a multipart body."""
    for name in ("appid", "app_id"):
        assert client.post(client.v1, json={name: APP_ID, "image": ""}).json()["code"] == -1300
    form = client.post(client.v1, data={"appid": APP_ID}, files={"image": ("p", photograph)})
    assert form.status_code == 400
