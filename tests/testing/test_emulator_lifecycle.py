"""Starting, stopping, counting, connecting."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest
import requests
import trustme
from started_threads import StartedThreads

from airflow_imagetag.testing import Emulator, Faults, Stats


@pytest.fixture
def threads() -> StartedThreads:
    """Tell this test's emulators from those that other tests of the process share."""
    return StartedThreads("imagetag-emulator")


def test_importing_the_package_loads_nothing_heavy():
    """Only the start of a server loads heavy modules."""
    code = (
        "import sys, airflow_imagetag.testing, airflow_imagetag.testing.pytest_plugin\n"
        "airflow_imagetag.testing.Emulator()\n"
        "print(sorted({'aiohttp', 'PIL', 'airflow', 'pandas', 'requests'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_emulators_live_side_by_side(connect, photograph):
    """Each has its own port, account and counts."""
    with Emulator() as one, Emulator(secret_key="another") as other:
        assert one.port != other.port
        assert connect(one).base64(photograph).status_code == 200
        assert connect(other).base64(photograph).status_code == 403
        assert (one.stats.billed, other.stats.billed) == (1, 0)


def test_stop_frees_port_and_threads(threads, connect, photograph):
    """After a stop the port is closed and no thread is left; a second stop does nothing."""
    emulator = Emulator().start()
    assert connect(emulator).base64(photograph).status_code == 200
    emulator.stop()
    emulator.stop()
    assert threads.names() == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", emulator.port))


def test_an_emulator_can_be_started_again(connect, photograph):
    """Counts survive a restart, so that a test can simulate an outage."""
    emulator = Emulator()
    for _ in range(2):
        with emulator:
            assert connect(emulator).base64(photograph).status_code == 200
    assert emulator.stats.billed == 2


def test_misuse_is_told():
    """A second start, the port before a start, and wrong settings raise errors."""
    with Emulator() as emulator, pytest.raises(RuntimeError, match="already"):
        emulator.start()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = Emulator().port
    with pytest.raises(ValueError, match="fetch_timeout_seconds"):
        Emulator(fetch_timeout_seconds=0)
    with pytest.raises(ValueError, match="answer_form"):
        Emulator(answer_form="other")  # type: ignore[arg-type]


def test_a_port_that_is_taken(threads):
    """The start raises the system's error and leaves no thread."""
    with Emulator() as emulator:
        second = Emulator(port=emulator.port)
        with pytest.raises(OSError, match="address already in use"):
            second.start()
    assert threads.names() == []
    with second:
        assert second.port == emulator.port


def test_repr_keeps_the_secret():
    """The representation shows the address, not the account."""
    emulator = Emulator(secret_key="very secret")
    assert "not started" in repr(emulator)
    with emulator:
        assert emulator.url in repr(emulator)
        assert "very secret" not in repr(emulator) + repr(vars(emulator))
    assert "not running" in repr(emulator)


def test_stopping_with_requests_in_flight(threads, client, photograph):
    """Clients lose their connections: the stop does not wait for the answers."""
    client.emulator.faults = Faults(latency_seconds=600)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.multipart, photograph) for _ in range(8)]
        while client.emulator.stats.in_flight < 8:
            time.sleep(0.005)
        client.emulator.stop()
        assert all(isinstance(w.exception(), requests.ConnectionError) for w in waiting)
    assert client.emulator.stats.in_flight == 0
    assert threads.names() == []


def test_a_stop_leaves_nothing_open():
    """A stop amid requests, decoding and downloads is silent, with warnings as errors."""
    code = """if True:
        import asyncio, gc, io, logging, os, socket, ssl, sys, time
        import aiohttp, trustme
        from PIL import Image
        from airflow_imagetag.services.recognition.signature import sign
        from airflow_imagetag.testing import Emulator, Faults

        authority = trustme.CA()
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(served)
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        now = int(time.time())
        headers = {"Authorization": sign("1250000001", "AKIDemulator0000000000000000000000",
            "emulatorSecretKey000000000000000", now=now, expires=now + 600, nonce=1)}
        file = io.BytesIO()
        Image.new("RGB", (6000, 6000)).save(file, "PNG", compress_level=1)

        async def use(emulator, silent_url):
            connector = aiohttp.TCPConnector(ssl=trusted)
            async with aiohttp.ClientSession(emulator.url, connector=connector) as session:
                async def post(**body):
                    path = "/imagetag/picture_classify"
                    try:
                        async with session.post(path, headers=headers, **body) as response:
                            await response.read()
                    except aiohttp.ClientError:
                        pass
                def form():
                    form = aiohttp.FormData({"app_id": "1250000001"})
                    form.add_field("image", file.getvalue(), filename="a")
                    return form
                posts = [post(data=form()) for _ in range(6)]
                posts += [post(json={"app_id": "1250000001", "url": silent_url}) for _ in range(3)]
                tasks = [asyncio.create_task(one) for one in posts]
                await asyncio.sleep(0.1)
                await asyncio.to_thread(emulator.stop)
                await asyncio.wait(tasks)

        # The clients of this thread may still be sending at the stop, and asyncio logs that.
        logging.getLogger("asyncio").addFilter(
            lambda record: record.threadName == "imagetag-emulator"
        )
        descriptors = len(os.listdir("/proc/self/fd"))
        with Emulator(faults=Faults(latency_seconds=60)) as slow:
            for context in (None, served):
                emulator = Emulator(ssl_context=context).start()
                address = ("127.0.0.1", emulator.port)
                mute = [socket.create_connection(address) for _ in range(3)]
                if context:
                    mute[0] = trusted.wrap_socket(mute[0], server_hostname="127.0.0.1")
                mute[0].sendall(b"POST / HTTP/1.1\\r\\n")
                asyncio.run(use(emulator, slow.url + "/x"))
                for connection in mute:
                    connection.close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_https(connect, photograph):
    """With an ssl_context the emulator serves https, and its connection says so."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Emulator(ssl_context=context) as emulator, authority.cert_pem.tempfile() as trusted:
        assert emulator.url.startswith("https://")
        assert json.loads(emulator.connection_json)["schema"] == "https"
        client = connect(emulator)
        client.session.verify = trusted
        assert client.base64(photograph).json()["code"] == 0
        client.session.close()


def test_stats(client, photograph, small_images):
    """A snapshot has the counts of its moment and is immutable."""
    before = client.emulator.stats
    client.base64(photograph)
    client.multipart(photograph)
    client.multipart(small_images[0])
    client.multipart(b"text")
    client.post(f"{client.emulator.url}/elsewhere")
    stats = client.emulator.stats
    assert before.requests == 0
    assert stats.requests == stats.peak_requests_per_second == 5
    assert stats.by_status == {200: 4, 404: 1}
    assert stats.by_code == {0: 3, -1102: 1}
    assert stats.by_api == {"picture_classify": 4}
    assert stats.billed == 3
    assert stats.refused == 2
    assert stats.refused_by_api == {"picture_classify": 1}
    assert stats.billed_by_api == {"picture_classify": 3}
    assert stats.billed_images == {
        hashlib.sha256(photograph).hexdigest(): 2,
        hashlib.sha256(small_images[0]).hexdigest(): 1,
    }
    # A client may have its answer, and send again, before the server ends the request.
    assert stats.in_flight <= 1 <= stats.max_in_flight <= 2
    assert stats.signatures_seen == 1
    with pytest.raises(TypeError):
        stats.by_code[0] = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.requests = 7


def test_stats_can_be_reset(client, photograph):
    """After a reset every count is zero; a request in progress stays in flight."""
    client.base64(photograph)
    client.emulator.reset_stats()
    zero = client.emulator.stats
    assert isinstance(zero, Stats)
    assert not any(dataclasses.asdict(dataclasses.replace(zero, **EMPTY_MAPPINGS)).values())
    client.emulator.faults = Faults(latency_seconds=0.3)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.multipart, photograph)
        while client.emulator.stats.in_flight == 0:
            time.sleep(0.005)
        client.emulator.reset_stats()
        assert client.emulator.stats.in_flight == client.emulator.stats.max_in_flight == 1
        assert slow.result().status_code == 200
    assert client.emulator.stats.in_flight == 0


EMPTY_MAPPINGS: dict[str, Any] = {
    name: {}
    for name in (
        "by_api",
        "by_status",
        "by_code",
        "billed_by_api",
        "billed_images",
        "refused_by_api",
    )
}


def test_the_counts_as_json(client, photograph):
    """GET /_stats gives every count by its name, without a signature, a fault or a count."""
    client.base64(photograph)
    client.multipart(b"text")
    client.emulator.faults = Faults(drop_rate=1.0, latency_seconds=60)
    answer = client.session.get(f"{client.emulator.url}/_stats", timeout=60)
    stats = client.emulator.stats
    counts = answer.json()
    assert set(counts) == {field.name for field in dataclasses.fields(Stats)}
    assert (counts["requests"], counts["billed"], counts["refused"]) == (2, 1, 1)
    assert counts["refused_by_api"] == {"picture_classify": 1}
    assert counts["by_code"] == {"0": 1, "-1102": 1}
    assert counts["billed_images"] == dict(stats.billed_images)
    assert stats.requests == 2


def test_only_get_gives_the_counts(client):
    """Any other method on that path is a request for no API."""
    assert client.post(f"{client.emulator.url}/_stats").status_code == 404
    assert client.emulator.stats.requests == client.emulator.stats.refused == 1


def test_many_requests_at_once(client, small_images):
    """Sixty-four connections are served at once, and each image is billed once."""

    async def post_all() -> list[int]:
        headers = {"Authorization": client.signature()}

        async def post(session: aiohttp.ClientSession, image: bytes) -> int:
            form = aiohttp.FormData({"app_id": "1250000001"})
            form.add_field("image", image, filename="a")
            async with session.post(client.v2, data=form, headers=headers) as response:
                return (await response.json())["code"]

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
            return await asyncio.gather(*(post(session, image) for image in small_images))

    assert asyncio.run(post_all()) == [0] * 100
    assert set(client.emulator.stats.billed_images.values()) == {1}
    assert client.emulator.stats.billed == 100


def test_a_wildcard_address_is_reached_by_the_local_one(connect, photograph):
    """An emulator on a wildcard address gives its local address."""
    with Emulator(host="0.0.0.0") as emulator:
        assert emulator.url == f"http://127.0.0.1:{emulator.port}"
        assert connect(emulator).base64(photograph).status_code == 200


def test_the_airflow_connection():
    """The connection has all fields of the hook, and its JSON form is equal to it."""
    from airflow.providers.common.compat.sdk import Connection

    with Emulator(bucket="mine") as emulator:
        read = Connection.from_json(emulator.connection_json, conn_id="imagetag_default")
        for connection in (emulator.connection, read):
            assert connection.conn_id == "imagetag_default"
            assert connection.conn_type == "imagetag"
            assert (connection.host, connection.port) == ("127.0.0.1", emulator.port)
            assert connection.schema == "http"
            assert connection.login is not None
            assert connection.login.startswith("AKID")
            assert connection.password == "emulatorSecretKey000000000000000"
            extra = {"app_id": "1250000001", "bucket": "mine", "api": "picture_classify"}
            assert connection.extra_dejson == extra


@pytest.mark.parametrize(
    ("api", "extra"),
    [
        ("picture_classify", {"app_id": "1250000001", "api": "picture_classify"}),
        ("imagetag_detect", {"app_id": "1250000001", "api": "imagetag_detect"}),
        (
            "DetectLabelPro",
            {"api": "DetectLabelPro", "region": "ap-guangzhou", "token": "temporary"},
        ),
        ("DetectLabel", {"api": "DetectLabel", "region": "ap-guangzhou", "token": "temporary"}),
    ],
)
def test_a_connection_for_each_api(api, extra):
    """A connection has its API, and the fields that the API needs."""
    with Emulator(token="temporary") as emulator:
        assert emulator.connection_for(api).extra_dejson == extra
        assert json.loads(emulator.connection_json_for(api))["extra"] == extra
        assert "temporary" not in repr(emulator) + repr(vars(emulator))


def test_an_unknown_api():
    """An unknown name raises an error that lists the known ones."""
    with Emulator() as emulator, pytest.raises(ValueError, match="DetectLabelPro"):
        emulator.connection_json_for("detectlabelpro")  # type: ignore[arg-type]
