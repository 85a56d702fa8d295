"""Import paths of version 0.1.0, and a service that was written for it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import service_of_0_1_0 as old

from airflow_imagetag import errors, services
from airflow_imagetag.models import Image, Label
from airflow_imagetag.services import registry, response_parsing
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.recognition import signature
from airflow_imagetag.services.request_codec import RequestCodec


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("signature", "sign", signature.sign),
        ("account", "Account", services.Account),
        ("base", "Answer", services.HttpResponse),
        ("base", "Limits", services.Limits),
        ("base", "Payload", services.Payload),
        ("base", "Reading", services.ParsedLabels),
        ("base", "Request", services.Request),
        ("base", "Service", services.Service),
        ("base", "most_probable_first", services.most_probable_first),
        ("registry", "ENTRY_POINTS", registry.ENTRY_POINTS),
        ("registry", "find_service", services.find_service),
        ("answers", "Meaning", response_parsing.ErrorMeaning),
    ],
)
def test_a_documented_path_of_0_1_0(module, name, expected):
    """It gives the very object that the new path gives."""
    found = importlib.import_module(f"airflow_imagetag.service.{module}")
    assert getattr(found, name) is expected
    assert name in found.__all__


def test_every_function_of_answers():
    """Each has a namesake in ``response_parsing``, but for the class that has a new name."""
    from airflow_imagetag.service import answers

    assert {*answers.__all__} - {"Meaning"} == {*response_parsing.__all__} - {
        "ErrorMeaning",
        "label",
    }


def test_the_public_path_of_authors():
    """All of its names are there."""
    assert all(hasattr(services, name) for name in services.__all__)


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install the old service as a package would, and return how to parse its connection."""
    metadata = tmp_path / "old-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: old\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[airflow_imagetag.services]\nacme = service_of_0_1_0:Acme\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def parse(**extra: Any) -> services.Account:
        return parse_account(
            conn_id="c",
            login=None,
            password="key",
            host=None,
            port=None,
            schema=None,
            extra={"api": "acme", **extra},
            find_service=services.find_service,
        )

    return parse


def test_a_service_of_0_1_0_labels(acme):
    """It is found, builds a request and reads the answer, with all names of 0.1.0."""
    codec = RequestCodec(acme())
    assert codec.request(services.Payload(content=b"x")).body == b"x"
    assert (codec.needs_io, codec.max_inline_bytes) == (False, 128 * 1024)
    labels = codec.result(
        Image("a"), old.says({"labels": [["dog", 4, "pet"], ["cat", 93, "pet"]]})
    ).labels
    assert labels == (Label("cat", 0.93, "pet"), Label("dog", 0.04, "pet"))
    codec.check_probe(old.says({"error": "no image"}))


def test_a_service_of_0_1_0_refuses_a_connection(acme):
    """Its own reason is told, and that of the base class is asked for."""
    with pytest.raises(errors.ConfigurationError, match="acme_model in extra is too old"):
        acme(acme_model="v0")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (old.says({}, 401), errors.AuthenticationError),
        (old.says({}, 429), errors.ThrottledError),
        (old.says({}, 503), errors.ServiceUnavailableError),
        (old.says({"error": "x"}), errors.ImageDecodeError),
        (old.says({}), errors.MalformedAnswerError),
        (old.says({"labels": [[7, 50, "pet"]]}), errors.MalformedAnswerError),
        (old.says({"labels": [["cat", 101, "pet"]]}), errors.MalformedAnswerError),
        (old.says({"labels": [["cat", 50, ""]]}), errors.MalformedAnswerError),
    ],
)
def test_the_errors_of_a_service_of_0_1_0(acme, answer, expected):
    """Each function of ``answers`` makes its error, by position and by keyword."""
    with pytest.raises(errors.ImageTagError) as caught:
        RequestCodec(acme()).result(Image("a"), answer)
    assert type(caught.value) is expected
    if expected is errors.AuthenticationError:
        assert (caught.value.code, caught.value.request_id) == ("c", "r-1")
        assert "its words" in caught.value.message
