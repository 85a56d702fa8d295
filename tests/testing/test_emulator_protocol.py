"""Every documented status and code, over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from airflow_imagetag.testing import Emulator

APP_ID = "1250000001"
SIX_MEGABYTES = 6 * 1024 * 1024


@pytest.fixture
def files(tmp_path: Path, serve_folder) -> Iterator[tuple[Path, str]]:
    """Serve a folder over HTTP."""
    with serve_folder(tmp_path) as url:
        yield tmp_path, url


def code_of(response) -> int:
    """Return the business code of an answer, after a check of status and message."""
    assert response.status_code == 200, response.text
    assert response.json()["message"]
    return response.json()["code"]


def test_v2_answers_in_the_form_of_the_documents_example(client, photograph):
    """A labelled image gets code 0, message ok and at most five items, most probable first."""
    answer = client.base64(photograph).json()
    assert answer["code"] == 0
    assert answer["message"] == "ok"
    [group] = answer["data"]
    probabilities = [item["probability"] for item in group["items"]]
    assert 1 <= len(probabilities) <= 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 <= probability <= 1 for probability in probabilities)
    assert all(set(item) == {"label_name", "probability"} for item in group["items"])


def test_v2_answers_in_the_form_of_the_documents_table_when_asked(connect, client, photograph):
    """With answer_form="table", data is an object and names are level_name; the rest is equal."""
    [group] = client.base64(photograph).json()["data"]
    with Emulator(answer_form="table") as emulator:
        data = connect(emulator).base64(photograph).json()["data"]
    assert [(item["level_name"], item["probability"]) for item in data["items"]] == [
        (item["label_name"], item["probability"]) for item in group["items"]
    ]


def test_all_ways_of_sending_an_image_give_the_same_labels(client, files, photograph):
    """Base64, multipart and URL give one answer, and bill the same image."""
    folder, url = files
    (folder / "photo.jpg").write_bytes(photograph)
    answers = [
        client.base64(photograph).json(),
        client.multipart(photograph).json(),
        client.by_url(f"{url}/photo.jpg").json(),
    ]
    assert answers[0]["code"] == 0
    assert answers[0] == answers[1] == answers[2]
    assert list(client.emulator.stats.billed_images.values()) == [3]


def test_multipart_of_aiohttp_is_understood(client, photograph):
    """A form of aiohttp, with headers on each part, is read."""

    async def post() -> dict[str, Any]:
        form = aiohttp.FormData({"app_id": APP_ID})
        form.add_field("image", photograph, filename="photo.jpg", content_type="image/jpeg")
        headers = {"Authorization": client.signature()}
        async with (
            aiohttp.ClientSession() as session,
            session.post(client.v2, data=form, headers=headers) as response,
        ):
            return await response.json()

    assert asyncio.run(post()) == client.base64(photograph).json()


def test_url_wins_over_image(client, files, photograph, small_images):
    """When both are given the service uses the URL."""
    folder, url = files
    (folder / "photo.jpg").write_bytes(photograph)
    both = client.base64(small_images[0], url=f"{url}/photo.jpg")
    assert both.json() == client.base64(photograph).json()


def test_an_empty_url_is_no_url(client, photograph):
    """An empty url beside an image does not hide it."""
    assert code_of(client.base64(photograph, url="")) == 0


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"image": "AAAA"}, -1301),
        ({"app_id": "", "image": "AAAA"}, -1301),
        ({"app_id": None, "image": "AAAA"}, -1301),
        ({"appid": APP_ID, "image": "AAAA"}, -1301),
        ({"app_id": APP_ID}, -1301),
        ({"app_id": APP_ID, "url": "", "image": None}, -1301),
        ({"app_id": APP_ID, "image": ""}, -1300),
        ({"app_id": APP_ID, "url": "http://x/" + "y" * 1016}, -1304),
        ({"app_id": APP_ID, "image": "not base64!"}, -1102),
        ({"app_id": APP_ID, "image": "é"}, -1102),
        ({"app_id": APP_ID, "image": base64.b64encode(b"plain text").decode()}, -1102),
    ],
)
def test_business_codes(client, parameters, code):
    """A well-formed request with a wrong parameter gets status 200 and the documented code."""
    assert code_of(client.post(json=parameters)) == code
    assert client.emulator.stats.by_code == {code: 1}
    assert client.emulator.stats.billed == 0


def test_a_truncated_photograph_cannot_be_decoded(client, photograph):
    """Half a file is code -1102."""
    assert code_of(client.multipart(photograph[: len(photograph) // 2])) == -1102


def test_an_empty_file_in_a_form_is_an_empty_image(client):
    """Zero bytes in the file part are code -1300."""
    assert code_of(client.multipart(b"")) == -1300


def test_a_form_without_app_id_lacks_a_parameter(client, photograph):
    """A form with only the image is code -1301."""
    assert code_of(client.post(files={"image": ("photo", photograph)})) == -1301


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/closed-port.jpg",
        "http://[broken/photo.jpg",
        "http://127.0.0.1:99999/photo.jpg",
        "file:///etc/passwd",
        "no url at all",
    ],
)
def test_a_url_that_cannot_be_downloaded(client, url):
    """A failed download is -1300, the emulator's choice, with a message that gives the reason."""
    response = client.by_url(url)
    assert code_of(response) == -1300
    assert "could not be downloaded" in response.json()["message"]


def test_a_missing_or_empty_or_oversized_file_behind_a_url(client, files):
    """No file, a file without bytes and one over 6 MB are all code -1300."""
    folder, url = files
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "huge.jpg").write_bytes(bytes(SIX_MEGABYTES + 1))
    for name in ("missing.jpg", "empty.jpg", "huge.jpg"):
        assert code_of(client.by_url(f"{url}/{name}")) == -1300


def test_a_slow_download_is_given_up(connect):
    """A URL that does not answer within fetch_timeout_seconds is code -1300."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Emulator(fetch_timeout_seconds=0.1) as emulator,
    ):
        response = connect(emulator).by_url(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")
    assert code_of(response) == -1300
    assert "too long" in response.json()["message"]


@pytest.mark.parametrize(
    "request_of",
    [
        pytest.param({"data": b"{", "headers": {"Content-Type": "application/json"}}, id="cut"),
        pytest.param({"data": b"", "headers": {"Content-Type": "application/json"}}, id="empty"),
        pytest.param({"data": b"\xff", "headers": {"Content-Type": "application/json"}}, id="utf8"),
        pytest.param(
            {"data": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, id="deep"
        ),
        pytest.param({"json": ["app_id"]}, id="list"),
        pytest.param({"json": {"app_id": 1250000001, "image": "AAAA"}}, id="numeric-app-id"),
        pytest.param({"json": {"app_id": APP_ID, "url": 5}}, id="numeric-url"),
        pytest.param({"data": {"app_id": APP_ID, "image": "AAAA"}}, id="urlencoded"),
        pytest.param({"data": b"{}", "headers": {"Content-Type": ""}}, id="no-content-type"),
        pytest.param(
            {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, id="no-boundary"
        ),
        pytest.param(
            {"data": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            id="no-parts",
        ),
        pytest.param(
            {
                "data": b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--",
                "headers": {"Content-Type": "multipart/form-data; boundary=b"},
            },
            id="nameless-part",
        ),
        pytest.param({"files": {"app_id": (None, APP_ID), "image": (None, "x")}}, id="not-a-file"),
        pytest.param({"files": {"app_id": (None, b"\xff")}}, id="text-not-utf8"),
        pytest.param(
            {"files": {"app_id": (None, APP_ID), "url": ("u", "http://x")}}, id="url-file"
        ),
    ],
)
def test_a_body_in_the_wrong_format(client, request_of):
    """A body that is neither documented JSON nor a documented form gets 400 and a message."""
    response = client.post(**request_of)
    assert response.status_code == 400, response.text
    assert response.json()["code"] == -1
    assert response.json()["message"]


def test_an_account_other_than_the_signatures(client):
    """An app_id that is not the account's gets 403."""
    response = client.post(json={"app_id": "1", "image": "AAAA"})
    assert response.status_code == 403


def test_an_unknown_path(client):
    """Any other path gets 404, before all other checks."""
    assert client.post(f"{client.emulator.url}/imagetag/other").status_code == 404
    assert client.session.get(client.emulator.url, timeout=60).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_another_method(client, method):
    """Methods other than POST get 424, the document's "method not found"."""
    response = client.session.request(method, client.v2, timeout=60)
    assert response.status_code == 424


def test_a_body_of_unknown_length(client, photograph):
    """A chunked body has no Content-Length and gets 411."""
    assert client.post(data=iter([photograph])).status_code == 411


def test_a_body_over_six_megabytes(client):
    """One byte over 6 MB gets 413; exactly 6 MB is read, here as invalid JSON."""
    headers = {"Content-Type": "application/json"}
    assert client.post(data=bytes(SIX_MEGABYTES + 1), headers=headers).status_code == 413
    assert client.post(data=bytes(SIX_MEGABYTES), headers=headers).status_code == 400


def test_checks_come_in_the_documents_order(client):
    """Path before method, method before length, length before signature, signature before body."""
    bad = {"Authorization": "bad", "Content-Type": "application/json"}
    assert client.session.get(f"{client.emulator.url}/no", timeout=60).status_code == 404
    assert client.session.get(client.v2, headers=bad, timeout=60).status_code == 424
    assert client.post(data=iter([b"x"]), headers=bad).status_code == 411
    assert client.post(data=bytes(SIX_MEGABYTES + 1), headers=bad).status_code == 413
    assert client.post(data=b"{", headers=bad).status_code == 403


def test_a_client_that_waits_for_permission_to_send(client, photograph):
    """Expect: 100-continue, which curl sends with large images, is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", client.emulator.port, timeout=60)
    body = b'{"app_id": "%s"}' % APP_ID.encode()
    connection.putrequest("POST", "/imagetag/picture_classify")
    for name, value in {
        "Authorization": client.signature(),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Expect": "100-continue",
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(body)
    response = connection.getresponse()
    assert response.status == 200
    response.read()
    connection.close()


def test_a_client_that_goes_away_in_the_middle(client, photograph):
    """The emulator survives a connection that closes before the end of the body."""
    with socket.create_connection(("127.0.0.1", client.emulator.port)) as connection:
        connection.sendall(
            b"POST /imagetag/picture_classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\nAuthorization: "
            + client.signature().encode()
            + b"\r\n\r\n{"
        )
    assert code_of(client.base64(photograph)) == 0
    wait_until(lambda: client.emulator.stats.in_flight == 0)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for an effect of another thread."""
    while not condition():
        time.sleep(0.01)
