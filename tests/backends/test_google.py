"""Google Cloud Storage: images and labels in it, keys that it refuses, URLs that are signed.

The tests with a server need the provider of Google, and the emulator ``gcp-storage-emulator``; they
are skipped where one is missing. The emulator asks for no key, so a server of this module answers
for the one that grants tokens.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from databases import API, check_life, gathered, tagged
from google_xml import XmlInterface
from web_servers import Handler, serving

from airflow_imagetag.backends.delta_places import DeltaPlace
from airflow_imagetag.backends.places import place_of, presigned_url, read_start
from airflow_imagetag.backends.storage_faults import Fault, diagnose, storage_error
from airflow_imagetag.backends.storages import connect
from airflow_imagetag.errors import ConfigurationError, StorageAccessError
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore, StoreMode
from airflow_imagetag.testing import Emulator

# The library reads it when it is imported, and would ask by gRPC of which kind a bucket is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

HAS_GOOGLE = all(
    importlib.util.find_spec(name) for name in ("gcsfs", "gcp_storage_emulator", "gcloud")
)


def running(url: str) -> bool:
    """Tell whether a server answers."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """Start the emulator with the bucket ``photos``."""
    if not HAS_GOOGLE:
        pytest.skip("gcp-storage-emulator and the provider of Google are not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    with subprocess.Popen(
        [sys.executable, "-m", "gcp_storage_emulator", *command, "--default-bucket", "photos"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not running(url):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
        server.kill()


class Tokens(Handler):
    """Grants a token, or refuses the key."""

    def answer(self) -> None:
        """Answer by the path."""
        self.body()
        form = {"Content-Type": "application/json"}
        if self.path == "/wrong":
            text = json.dumps({"error": "invalid_grant", "error_description": "Invalid JWT"})
            self.respond(text.encode(), status=400, headers=form)
        else:
            text = json.dumps({"access_token": "t" * 40, "expires_in": 3600})
            self.respond(text.encode(), headers=form)


@pytest.fixture
def bucket(
    storage: str,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
) -> Iterator[str]:
    """Make a bucket with three images, and connections with a key, a wrong one and none."""
    endpoint: dict[str, Any] = {"project": "shop", "gcs.endpoint": storage}
    with serving(Tokens) as tokens:
        extras: dict[str, dict[str, Any]] = {
            "anonymous": {"is_anonymous": True},
            "right": {"keyfile_dict": json.dumps(key_file(f"{tokens}/right"))},
            "wrong": {"keyfile_dict": json.dumps(key_file(f"{tokens}/wrong"))},
        }
        for name, extra in extras.items():
            fields = {"conn_type": "google_cloud_platform", "extra": endpoint | extra}
            monkeypatch.setenv(f"AIRFLOW_CONN_GOOGLE_{name.upper()}", json.dumps(fields))
        file_system = connect("gs://google_anonymous@photos").file_system
        for number, content in enumerate(small_jpegs(3)):
            file_system.pipe_file(f"photos/x/{number}.jpg", content)
        yield "photos"


def key_file(token_uri: str) -> dict[str, str]:
    """Return a service account with a key of its own."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return {
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "1",
        "private_key": text,
        "client_email": "labels@shop.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


@pytest.mark.parametrize("scheme", ["gs", "gcs"])
@pytest.mark.parametrize("conn_id", ["google_anonymous", "google_right"])
def test_each_scheme_lists_and_reads(scheme: str, conn_id: str, bucket: str):
    """With a key that the storage takes, and without one."""
    uri = f"{scheme}://{conn_id}@{bucket}/x/"
    images = [image for image in ObjectStorageImages(uri).entries() if isinstance(image, Image)]
    assert [image.uri for image in images] == [f"{uri}{number}.jpg" for number in range(3)]
    assert all(image.version for image in images)
    assert read_start(place_of(str(images[0].uri)), 2) == b"\xff\xd8"


def test_images_are_awaited_and_labelled_once(bucket: str, service: Emulator):
    """The sensor finds them, the operator labels them, and a second run has nothing to do."""
    source = ObjectStorageImages(f"gs://google_right@{bucket}/x/")
    store = ParquetLabelStore(f"gs://google_right@{bucket}/labels")
    sensor = NewImagesSensor(task_id="wait", images=source, store=store)
    found = sensor.poke({})
    assert len(getattr(found, "xcom_value", [])) == 3
    task = ImageTagOperator(task_id="label", images=source, store=store)
    for calls in (3, 0):
        summary = task.execute({})
        assert isinstance(summary, dict)
        assert summary["calls"] == calls
    assert not sensor.poke({})
    assert service.stats.billed == 3


def test_a_parquet_dataset_on_google(bucket: str):
    """Labels are written, replaced, read and compacted."""
    store = ParquetLabelStore(f"gs://google_right@{bucket}/replaced")
    for version in ("1", "2"):
        with store.open(API) as opened:
            opened.check_writable()
            opened.write([tagged("a", version, version=version)])
    store.compact()
    assert gathered(store.labels()) == [("a", "2")]


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_refused_key_fails_at_once(bucket: str, deferrable: bool, emulator: Emulator):
    """In a sensor, a store and an operator, with what to check."""
    source = ObjectStorageImages(f"gs://google_wrong@{bucket}/x/")
    store = ParquetLabelStore(f"gs://google_wrong@{bucket}/labels")
    sensor = NewImagesSensor(task_id="wait", images=source, store=store, deferrable=deferrable)
    with pytest.raises(ConfigurationError, match="connection"):
        sensor.execute({})
    with pytest.raises(ConfigurationError, match="connection"), store.open(API, StoreMode.READ):
        pass
    label = ImageTagOperator(task_id="label", images=source)
    with pytest.raises(ConfigurationError, match="connection"):
        label.execute({})
    assert emulator.stats.requests == 0


def test_signed_urls_need_a_key(bucket: str, service: Emulator):
    """Without one the run ends with one error, not with one for each image."""
    assert "&Signature=" in presigned_url(place_of(f"gs://google_right@{bucket}/x/0.jpg"), 60)
    source = ObjectStorageImages(f"gs://google_anonymous@{bucket}/x/", send="url")
    label = ImageTagOperator(task_id="label", images=source)
    with pytest.raises(ConfigurationError, match="credentials that can sign"):
        label.execute({})
    assert service.stats.requests == 0


def test_a_storage_that_forbids_is_no_failure_for_now():
    """The library tells it by a text only; a sensor would wait for ever."""
    validate = pytest.importorskip("gcsfs.retry").validate_response
    with pytest.raises(OSError, match="Forbidden") as caught:
        validate(403, b'{"error": {"message": "no access"}}', "b/photos/o")
    assert type(storage_error(caught.value, "It cannot be listed")) is StorageAccessError


def test_a_server_of_tokens_that_fails_is_tried_again():
    """Unlike one that refuses the key."""
    error = pytest.importorskip("google.auth.exceptions").RefreshError
    assert diagnose(error("unavailable", retryable=True)).fault is Fault.MOMENT
    assert diagnose(error("invalid_grant")).fault is Fault.WORKER


@pytest.fixture
def xml(bucket: str, storage: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the connection of the key the interface by which Delta tables are read and written."""

    class Interface(XmlInterface):
        emulator = storage

    with serving(Interface) as url:
        fields = json.loads(os.environ["AIRFLOW_CONN_GOOGLE_RIGHT"])
        fields["extra"]["gcs.endpoint"] = url
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_XML", json.dumps(fields))
        yield bucket


def test_delta_tables_on_google(xml: str):
    """They are written, replaced, read and compacted."""
    pytest.importorskip("deltalake", reason="the extra delta is not installed")
    store = DeltaLabelStore(f"gs://google_xml@{xml}/lake")
    check_life(store)


def test_writers_of_delta_tables_on_google(xml: str):
    """A version that another writer has made is not replaced: the write is tried again."""
    pytest.importorskip("deltalake", reason="the extra delta is not installed")
    store = DeltaLabelStore(f"gs://google_xml@{xml}/shared")
    with store.open(API):
        pass

    def write(writer: str) -> None:
        with store.open(API) as opened:
            for number in range(4):
                opened.write([tagged(f"{writer}{number}", "x")])

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, "abc"))
    keys = [f"{writer}{number}" for writer in "abc" for number in range(4)]
    assert gathered(store.labels()) == [(key, "x") for key in keys]


# -- what the library for Delta tables is given ---------------------------------------------------


def delta_options(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> dict[str, str]:
    """Return the options of a connection for the library for Delta tables."""
    fields = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(fields))
    monkeypatch.setattr(
        "airflow_imagetag.backends.delta_places.place_of",
        lambda path, conn_id: type("Place", (), {"path": path, "conn_id": "lake"}),
    )
    return DeltaPlace("gs://lake@labels/x").options()


@pytest.mark.parametrize("as_text", [False, True])
def test_delta_is_given_the_key(monkeypatch: pytest.MonkeyPatch, as_text: bool):
    """As JSON, whether the connection has it as a text or as an object."""
    key = {"client_email": "labels@shop", "private_key": "the-private-key"}
    options = delta_options(monkeypatch, keyfile_dict=json.dumps(key) if as_text else key)
    assert json.loads(options["google_service_account_key"]) == key


def test_delta_refuses_credentials_that_it_cannot_use(monkeypatch: pytest.MonkeyPatch):
    """The worker's own would be used in their place."""
    with pytest.raises(ConfigurationError, match="does not know impersonation_chain"):
        delta_options(monkeypatch, impersonation_chain="labels@shop")
