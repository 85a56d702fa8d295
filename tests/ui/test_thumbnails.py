"""Small pictures: whose they are, what they hold, and what is said where there is none."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from databases import API, Database, failed, tagged
from pictures import write
from starlette.testclient import TestClient
from web import application_of, client_of, served
from web_servers import Handler, serving

from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.stores import LabelStore, SqlLabelStore
from airflow_imagetag.stores.rows import key_digest
from airflow_imagetag.ui import application
from airflow_imagetag.ui.hub import PictureCache
from airflow_imagetag.ui.thumbnails import Thumbnails

SCRIPT = b"<script>alert(1)</script>"


class Photographer(Handler):
    """Serves one photograph, and keeps the paths that were asked for."""

    asked: list[str]
    content: bytes
    seconds = 0.0

    def answer(self) -> None:
        """Answer after a while."""
        self.asked.append(self.path)
        time.sleep(self.seconds)
        self.respond(self.content, headers={"Content-Type": "image/png"})


@pytest.fixture
def photographer(photographs: list[Path]) -> type[Photographer]:
    """Make the handler of a web server of photographs."""
    content = photographs[2].read_bytes()
    return type("Own", (Photographer,), {"asked": [], "content": content})


@pytest.fixture
def store(sqlite: Database) -> LabelStore:
    """Describe a store."""
    return SqlLabelStore("warehouse", "product_labels")


@pytest.fixture
def folder(tmp_path: Path, photographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Allow a folder with images of all kinds."""
    from PIL import Image

    found = tmp_path / "photographs"
    found.mkdir()
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(found))
    with Image.open(photographs[2]) as photograph:
        exif = photograph.getexif()
        exif[0x010E] = SCRIPT.decode()
        photograph.save(found / "cat.jpg", exif=exif, comment=SCRIPT)
    with (found / "cat.jpg").open("ab") as file:
        file.write(SCRIPT)
    (found / "broken.jpg").write_bytes((found / "cat.jpg").read_bytes()[:900])
    (found / "page.jpg").write_bytes(SCRIPT)
    return found


def ask(client: TestClient, key: str, api: str = API, **further: str) -> Any:
    """Ask for the small picture of a key."""
    given = {"api": api, "key": key_digest(key), **further}
    return client.get("/products/thumbnail", params=given)


def test_a_small_picture_is_a_new_one(store, folder):
    """A JPEG of at most 256 pixels, without the metadata and without what hides in the file."""
    from PIL import Image

    write(store, [tagged("cat", "x", uri=str(folder / "cat.jpg"))])
    with client_of({"products": store}) as client:
        answer = ask(client, "cat")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert SCRIPT in (folder / "cat.jpg").read_bytes()
    assert b"script" not in answer.content
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", 256)
        assert not picture.getexif()


def test_an_address_names_a_stored_image_and_nothing_else(store, folder):
    """Other stores, interfaces and digests are not found; a URI of the reader's is not read."""
    write(store, [tagged("cat", "x", uri=str(folder / "cat.jpg"))])
    write(store, [tagged("none", "x", uri=None)])
    with client_of({"products": store}) as client:
        own = ask(client, "cat").content
        for name in ("uri", "image_uri", "path", "url"):
            assert ask(client, "cat", **{name: "/etc/hostname"}).content == own
            assert b"holds no URI" in ask(client, "none", **{name: str(folder / "cat.jpg")}).content
        assert ask(client, "cat", api="other").status_code == 404
        assert ask(client, "other").status_code == 404
        for digest in ("", "cat", key_digest("cat").upper(), f"{key_digest('cat')}\0", "../cat"):
            given = {"api": API, "key": digest}
            assert client.get("/products/thumbnail", params=given).status_code == 404
        given = {"api": API, "key": key_digest("cat")}
        assert client.get("/others/thumbnail", params=given).status_code == 404


REASONS = {
    "none": "the store holds no URI",
    "https://shop.example/a.jpg": "this server fetches no URLs",
    "/etc/hostname": "reading it is not allowed",
    "{folder}/../../etc/hostname": "reading it is not allowed",
    "{folder}/missing.jpg": "it cannot be read",
    "s3://unknown_conn@bucket/a.jpg": "it cannot be read",
    "s3://warehouse@bucket/a.jpg": "reading it is not allowed",
    "{folder}/broken.jpg": "it cannot be decoded",
    "{folder}/page.jpg": "it cannot be decoded",
    "{folder}/bomb.png": "it is too large",
    "javascript:alert(1)": "No picture",
}


def test_where_there_is_no_picture_the_page_says_why(store, folder):
    """As a small drawing in the reader's language, which no browser keeps."""
    from PIL import Image

    Image.new("1", (8_000, 8_000)).save(folder / "bomb.png")
    uris = {name: None if name == "none" else name.format(folder=folder) for name in REASONS}
    write(store, [tagged(name, "x", uri=uri) for name, uri in uris.items()])
    with client_of({"products": store}) as client:
        for name, reason in REASONS.items():
            answer = ask(client, name)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/svg+xml"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert reason in answer.text, name
            assert "hostname" not in answer.text
        assert "无图片" in ask(client, "none", lang="zh").text


def test_an_image_that_failed_has_a_picture_too(store, folder):
    """It helps to see what the service refused."""
    write(store, [failed("cat", uri=str(folder / "cat.jpg"))])
    with client_of({"products": store}) as client:
        assert ask(client, "cat").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("may_fetch", "hosts", "reason"),
    [
        (False, ("127.0.0.1",), "fetches no URLs"),
        (True, (), "not allowed"),
        (True, ("127.0.0.1",), None),
    ],
    ids=["never", "private", "allowed"],
)
def test_a_url_is_fetched_only_where_the_server_may(store, photographer, may_fetch, hosts, reason):
    """No request leaves without the option, and none to a private address that is not named."""
    thumbnails = Thumbnails(ContentLoader(), may_fetch, hosts, "pages")
    with serving(photographer) as url:
        write(store, [tagged("cat", "x", uri=f"{url}/cat.png")])
        with client_of({"products": store}, thumbnails) as client:
            answer = ask(client, "cat")
    if reason is None:
        assert answer.headers["content-type"] == "image/jpeg"
        assert photographer.asked == ["/cat.png"]
    else:
        assert reason in answer.text
        assert photographer.asked == []


def test_a_picture_is_made_once(store, folder):
    """Later readers get the one that is kept; what could not be made is tried again."""
    write(store, [tagged("cat", "x", uri=str(folder / "own.jpg"))])
    with client_of({"products": store}) as client:
        assert "cannot be read" in ask(client, "cat").text
        (folder / "cat.jpg").rename(folder / "own.jpg")
        first = ask(client, "cat")
        (folder / "own.jpg").unlink()
        assert ask(client, "cat").content == first.content


def test_kept_pictures_have_a_bound(monkeypatch):
    """Those that were used least lately go first; an old one is not shown."""
    moment = 0.0
    monkeypatch.setattr("airflow_imagetag.ui.hub.time.monotonic", lambda: moment)
    cache = PictureCache(max_bytes=100, seconds=10)
    for name in "abc":
        cache.put(name, b"x" * 30)
    assert cache.get("a") is not None
    cache.put("d", b"x" * 40)
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    cache.put("d", b"x" * 20)
    cache.put("e", b"x" * 20)
    assert [name for name in "acde" if cache.get(name)] == ["a", "c", "d", "e"]
    cache.put("huge", b"x" * 101)
    assert cache.get("huge") is None
    cache.put("f", b"x")
    moment = 10.5
    assert cache.get("f") is None


@contextmanager
def busy(
    store: LabelStore, photographer: type[Photographer], count: int
) -> Iterator[tuple[str, list[str]]]:
    """Serve pages of slow photographs; the value is the URL and the addresses of the pictures."""
    photographer.seconds = 0.8
    thumbnails = Thumbnails(ContentLoader(), True, ("127.0.0.1",), "pages")
    keys = [f"cat {number}" for number in range(count)]
    with (
        serving(photographer) as pictures,
        application_of({"products": store}, thumbnails) as made,
        served(made) as url,
    ):
        write(store, [tagged(key, "x", uri=f"{pictures}/{key}.png") for key in keys])
        page = f"{url}/products/thumbnail?api={API}&key="
        yield url, [page + key_digest(key) for key in keys]


def get_all(addresses: list[str]) -> list[requests.Response]:
    """Ask for all addresses at once."""
    with ThreadPoolExecutor(len(addresses)) as executor:
        return list(executor.map(lambda address: requests.get(address, timeout=60), addresses))


def test_few_pictures_are_made_at_a_time(store, photographer, monkeypatch):
    """The others wait, longer than one request may; pages go on meanwhile."""
    monkeypatch.setattr(application, "PICTURE_WAIT_SECONDS", 1.2)
    with busy(store, photographer, 6) as (url, addresses), ThreadPoolExecutor(1) as executor:
        pending = executor.submit(get_all, addresses)
        assert requests.get(f"{url}/products/overview", timeout=60).ok
        assert len(photographer.asked) <= application.PICTURE_THREADS
        answers = pending.result()
    assert {answer.headers["content-type"] for answer in answers} == {"image/jpeg"}
    led = [answer.history for answer in answers if answer.history]
    assert led
    assert {step.headers["cache-control"] for history in led for step in history} == {"no-store"}


def test_a_picture_does_not_wait_for_ever(store, photographer, monkeypatch):
    """After some waits it says that the server is busy, which no browser keeps."""
    monkeypatch.setattr(application, "PICTURE_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(application, "PICTURE_WAITS", 2)
    with busy(store, photographer, 10) as (_, addresses):
        answers = get_all(addresses)
    kinds = [answer.headers["content-type"] for answer in answers]
    assert kinds.count("image/jpeg") == application.PICTURE_THREADS
    told = [answer for answer in answers if answer.headers["content-type"] == "image/svg+xml"]
    assert len(told) == len(addresses) - application.PICTURE_THREADS
    for answer in told:
        assert "the server is busy" in answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert len(answer.history) == 1


def test_more_pictures_than_may_wait_are_told_so_at_once(store, photographer, monkeypatch):
    """The queue has a bound, and so has its memory."""
    monkeypatch.setattr(application, "MAX_PICTURES", 1)
    with busy(store, photographer, 10) as (_, addresses):
        answers = get_all(addresses)
    kinds = [answer.headers["content-type"] for answer in answers]
    assert kinds.count("image/jpeg") == application.PICTURE_THREADS + 1
    assert not any(answer.history for answer in answers)


@pytest.mark.parametrize("waits", ["x", "-1", "99", "", "9"])
def test_a_reader_cannot_wait_longer_by_the_address(store, photographer, monkeypatch, waits):
    """The number of waits in an address is bounded, and one that is none counts as none."""
    monkeypatch.setattr(application, "PICTURE_WAIT_SECONDS", 0.05)
    with busy(store, photographer, 5) as (_, addresses):
        answers = get_all([f"{address}&waits={waits}" for address in addresses])
    assert all(len(answer.history) < application.PICTURE_WAITS for answer in answers)
    assert all("waits=4" not in answer.url for answer in answers)
