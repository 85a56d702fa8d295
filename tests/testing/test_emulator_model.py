"""The emulator in front of a model: the vendor's clients get real labels."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import qcloud_image
from qcloud_image.conf import Conf
from tencentcloud.common.credential import Credential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.tiia.v20190529 import models
from tencentcloud.tiia.v20190529.tiia_client import TiiaClient

from airflow_imagetag.testing import Emulator
from airflow_imagetag.testing._labels import UndecodableError
from airflow_imagetag.testing._model import model_recognizer

pytest.importorskip("onnxruntime")

SECRET_ID = "AKIDemulator0000000000000000000000"
SECRET_KEY = "emulatorSecretKey000000000000000"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """Run one emulator with a model for these tests."""
    with Emulator(labels="model") as running:
        yield running


def test_the_client_of_the_first_service_gets_real_labels(emulator, photographs, monkeypatch):
    """The service that it was made for was shut down."""
    monkeypatch.setattr(Conf, "_Conf__SERVICE_ADDR", f"127.0.0.1:{emulator.port}")
    monkeypatch.setenv("NO_PROXY", "*")
    client = qcloud_image.Client("1250000001", SECRET_ID, SECRET_KEY, "bucket")
    answer = client.tag_detect(qcloud_image.CIBuffer((photographs / "chelsea.png").read_bytes()))
    assert {tag["tag_name"] for tag in answer["tags"]} == {"tiger cat", "Egyptian cat", "tabby"}


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp")
def test_the_client_of_the_recommended_service_gets_real_labels(emulator, photographs):
    """Each label has the categories that an answer must have."""
    http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{emulator.port}", reqTimeout=10)
    client = TiiaClient(
        Credential(SECRET_ID, SECRET_KEY), "ap-guangzhou", ClientProfile(httpProfile=http)
    )
    request = models.DetectLabelProRequest()
    request.ImageBase64 = base64.b64encode((photographs / "coffee.png").read_bytes()).decode()
    answer: Any = json.loads(client.DetectLabelPro(request).to_json_string())
    assert answer["Labels"][0]["Name"] == "espresso"
    assert answer["Labels"][0]["Confidence"] > 80
    assert answer["Labels"][0]["FirstCategory"] == "Object"


def test_an_image_that_shows_nothing_known_has_one_label(photographs):
    """The most probable one, as the service has no answer without labels."""
    recognizer = model_recognizer()
    try:
        assert len(recognizer._label_image((photographs / "grass.png").read_bytes())) == 1
        with pytest.raises(UndecodableError):
            recognizer._label_image(b"no image")
    finally:
        recognizer.close()


def test_a_missing_package_names_the_extra(monkeypatch):
    """The command prints this message, and the emulator does not start."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"airflow-provider-imagetag\[local\]"):
        Emulator(labels="model").start()


def test_other_values_are_refused():
    """The message has the right ones."""
    with pytest.raises(ValueError, match='"pixels" or "model"'):
        Emulator(labels="words")  # type: ignore[arg-type]
