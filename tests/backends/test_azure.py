"""Azure: the schemes of its URIs, and keys that it refuses.

The tests with a server need the provider of Azure, and Azurite, which is Azure's emulator as an npm
package; they are skipped where one is missing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from databases import API, check_life

from airflow_imagetag.backends.places import place_of, presigned_url, read_start
from airflow_imagetag.backends.storage_faults import storage_error
from airflow_imagetag.backends.storages import connect
from airflow_imagetag.errors import ConfigurationError, StorageAccessError, StorageError
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore, StoreMode
from airflow_imagetag.testing import Emulator

AZURITE = os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob")
HAS_AZURE = importlib.util.find_spec("adlfs") is not None and AZURITE is not None
# Azurite's own, which everyone knows.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SCHEMES = ("abfs", "az", "wasb", "wasbs")


class RefusalError(Exception):
    """An error as the library of a storage raises it.

    :param status_code: HTTP status of the answer.
    """

    def __init__(self, status_code: int) -> None:
        super().__init__("Server failed to authenticate the request")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("status", "kind"), [(401, StorageAccessError), (403, StorageAccessError), (503, StorageError)]
)
def test_refused_credentials_are_no_failure_for_now(status: int, kind: type[Exception]):
    """A sensor that met them for a moment's failure would wait for ever."""
    assert type(storage_error(RefusalError(status), "It cannot be listed")) is kind


@pytest.fixture(scope="module")
def azure() -> Iterator[Callable[[str], str]]:
    """Start Azurite, and give a function that makes a connection with a key."""
    patch = pytest.MonkeyPatch()
    if not HAS_AZURE:
        pytest.skip("Azurite and the provider of Azure are not installed")
    command = ["--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"]
    with subprocess.Popen(
        [str(AZURITE), *command, "--blobPort", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        lines = (line for line in server.stdout if "successfully listens on" in line)
        url = next(lines).rsplit(" ", 1)[-1].strip()
        # The library for Delta tables looks for the emulator there.
        patch.setenv("AZURITE_BLOB_STORAGE_URL", url)

        def connection(key: str) -> str:
            account = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key}"
            text = f"{account};BlobEndpoint={url}/devstoreaccount1;"
            return json.dumps({"conn_type": "wasb", "extra": {"connection_string": text}})

        yield connection
        server.kill()
        patch.undo()


@pytest.fixture
def container(azure: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a container with one image, and connections with the right key and with a wrong one."""
    monkeypatch.setenv("AIRFLOW_CONN_AZURE_RIGHT", azure(KEY))
    monkeypatch.setenv("AIRFLOW_CONN_AZURE_WRONG", azure(f"QUJD{KEY[4:]}"))
    file_system = connect("abfs://azure_right@photos").file_system
    if not file_system.exists("photos"):
        file_system.mkdir("photos")
        file_system.pipe_file("photos/x/a.jpg", b"abc")
    return "photos"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_lists_and_reads(scheme: str, container: str):
    """Airflow's provider knows only one of them."""
    uri = f"{scheme}://azure_right@{container}/x/"
    [image] = ObjectStorageImages(uri).entries()
    assert isinstance(image, Image)
    assert image.uri == f"{uri}a.jpg"
    place = place_of(image.uri)
    assert read_start(place, 10) == b"abc"
    assert "sig=" in presigned_url(place, 600)


@pytest.mark.parametrize("kind", [ParquetLabelStore, DeltaLabelStore])
def test_labels_on_azure(kind: type[ParquetLabelStore] | type[DeltaLabelStore], container: str):
    """They are written, replaced, read and compacted."""
    if kind is DeltaLabelStore:
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
    store = kind(f"az://azure_right@{container}/{kind.__name__}")
    check_life(store)


def test_images_are_awaited_and_labelled_once(
    container: str, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """The sensor finds them, the operator labels them, and a second run has nothing to do."""
    for number, content in enumerate(small_jpegs(3)):
        connect("abfs://azure_right@photos").file_system.pipe_file(
            f"{container}/y/{number}.jpg", content
        )
    source = ObjectStorageImages(f"abfs://azure_right@{container}/y/")
    store = ParquetLabelStore(f"abfs://azure_right@{container}/labelled")
    sensor = NewImagesSensor(task_id="wait", images=source, store=store)
    assert len(getattr(sensor.poke({}), "xcom_value", [])) == 3
    task = ImageTagOperator(task_id="label", images=source, store=store)
    for calls in (3, 0):
        summary = task.execute({})
        assert isinstance(summary, dict)
        assert summary["calls"] == calls
    assert not sensor.poke({})
    assert service.stats.billed == 3


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_wrong_key_fails_at_once(container: str, deferrable: bool, emulator):
    """In a sensor, a store and an operator, with the remedy."""
    source = ObjectStorageImages(f"abfs://azure_wrong@{container}/x/")
    store = ParquetLabelStore(f"abfs://azure_wrong@{container}/labels")
    sensor = NewImagesSensor(task_id="wait", images=source, store=store, deferrable=deferrable)
    with pytest.raises(ConfigurationError, match="connection"):
        sensor.execute({})
    delta = DeltaLabelStore(f"abfs://azure_wrong@{container}/delta")
    for refused in (store, delta):
        with pytest.raises(ConfigurationError), refused.open(API, StoreMode.READ):
            pass
    label = ImageTagOperator(task_id="label", images=source)
    with pytest.raises(ConfigurationError, match="connection"):
        label.execute({})
    assert emulator.stats.requests == 0
