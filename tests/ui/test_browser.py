"""The pages and the report in a real browser: nothing of a store runs, and all of it fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from browsers import Browser, missing_program, opened_browser
from databases import API, NOON, sqlite_database, tagged
from pictures import Page, attacked, hostile_texts, photographed, write
from web import application_of, served

from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.rows import key_digest
from airflow_imagetag.stores.runs import RunOutcome, RunRecord

if missing := missing_program():
    pytest.skip(
        f"{missing} is not installed: apt-get install chromium chromium-driver",
        allow_module_level=True,
    )

COUNT = 200
WIDTHS = (1280, 420)

STATE = """
const foreign = "iframe, object, embed, base, textarea, [onload], [onerror], [onfocus]";
return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    scripts: document.scripts.length,
    foreign: document.querySelectorAll(foreign).length,
    refreshes: document.querySelectorAll("meta[http-equiv=refresh]").length,
    display: getComputedStyle(document.body).display,
};
"""
"""What a text that was taken for HTML, or that broke out of its place, would change."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run one browser for all tests."""
    with opened_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def browser(shared: Browser) -> Browser:
    """Return the browser without the console and the requests of an earlier test."""
    shared.open("about:blank")
    shared.console()
    shared.requested()
    return shared


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LabelStore]]:
    """Fill a store of each kind with texts that attack a page."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch, sqlite_database(folder, patch):
        found: dict[str, LabelStore] = {
            "products": SqlLabelStore("warehouse", "product_labels"),
            "lake": ParquetLabelStore(str(folder / "lake")),
        }
        for store in found.values():
            write(store, attacked(COUNT))
            _record_runs(store)
        yield found


def _record_runs(store: LabelStore) -> None:
    with store.open(API) as opened:
        for number, text in enumerate(hostile_texts(24)):
            names: Any = dict.fromkeys(("dag_id", "task_id", "run_id", "error"), text[:200])
            at = NOON + timedelta(minutes=number)
            opened.record_run(
                RunRecord(str(number), API, at, at, at, outcome=RunOutcome.FAILED, **names)
            )


@pytest.fixture(scope="module")
def url(stores: dict[str, LabelStore]) -> Iterator[str]:
    """Serve the pages of all stores."""
    with application_of(stores) as application, served(application) as found:
        yield found


def check(browser: Browser, address: str, *, scripts: int = 1) -> None:
    """Open a page at each width: its texts are only texts, and nothing is wider than the window.

    :param scripts: number of scripts that it has.
    """
    for width in WIDTHS:
        browser.resize(width, 900)
        browser.open(address)
        assert browser.run(STATE) == harmless(scripts), address


def harmless(scripts: int) -> dict[str, Any]:
    """Return the state of a page in which no text was taken for anything else."""
    return {
        "overflow": 0,
        "scripts": scripts,
        "foreign": 0,
        "refreshes": 0,
        "display": "block",
    }


def gallery_pages(url: str, store: str) -> list[str]:
    """Return the addresses of all pages of a gallery."""
    found = [f"{url}/{store}/gallery"]
    while True:
        page = Page(requests.get(found[-1], timeout=60).text)
        onward = [a["href"] for a in page.all("a") if a.get("rel") == "next"]
        if not onward:
            return found
        found.append(f"{url}/{store}/{onward[0]}")


def is_copied(url: str, store: str) -> bool:
    """Tell whether the pages of a store are there, and not yet only a sentence."""
    return "http-equiv" not in requests.get(f"{url}/{store}/overview", timeout=60).text


@pytest.mark.parametrize("store", ["products", "lake"])
def test_no_hostile_text_runs_or_breaks_a_page(browser, url, store):
    """On every page of a store of 200 of them; the console has no word of a violated policy."""
    while not is_copied(url, store):
        pass
    pages = ("overview", "labels", "failures", "runs")
    addresses = [f"{url}/{store}/{name}" for name in pages] + gallery_pages(url, store)
    shown = 0
    for address in addresses:
        check(browser, address)
        shown += browser.run("return document.querySelectorAll('.card').length")
    assert shown == COUNT
    assert [line for line in browser.console() if "favicon" not in line] == []
    assert {_host(address) for address in browser.requested()} == {url.partition("//")[2]}


def _host(address: str) -> str:
    return re.sub(r"^\w+://([^/]*).*$", r"\1", address)


def test_no_hostile_text_runs_on_the_page_of_an_image_or_in_an_address(browser, url):
    """One image of each kind of text, and the same texts as conditions and names of a task."""
    keys = [outcome.image_key for outcome in attacked(24)]
    given = [text[:500] for text in hostile_texts(24)]
    browser.resize(420, 900)
    addresses = [f"{url}/products/image?key={key_digest(key)}" for key in keys]
    for text in given:
        form = {"label": text, "q": text, "key": text, "since": text}
        task = {"dag_id": text, "run_id": text, "task_id": text, "map_index": text}
        for path, values in (("products/gallery", form), ("run", task)):
            request = requests.Request("GET", f"{url}/{path}", params=values).prepare()
            addresses.append(str(request.url))
    for address in addresses:
        browser.open(address)
        assert browser.run(STATE) == harmless(scripts=1), address
    assert [line for line in browser.console() if "favicon" not in line] == []


def test_no_hostile_text_runs_in_a_report(browser, stores, tmp_path):
    """The file of the same store, which has no script at all."""
    path = tmp_path / "report.html"
    stores["products"].report(str(path))
    check(browser, path.as_uri(), scripts=0)
    assert browser.run("return document.querySelectorAll('.card').length") == COUNT
    assert browser.console() == []


def test_a_report_of_200_photographs_asks_for_nothing(
    browser, sqlite, tmp_path, photographs, monkeypatch
):
    """One file of less than 10 MB: all pictures are shown, and no request leaves the browser."""
    folder = crops(photographs, tmp_path / "photographs", COUNT)
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(folder))
    store = SqlLabelStore("warehouse", "product_labels")
    write(store, photographed(sorted(folder.iterdir()), COUNT))
    path = tmp_path / "report.html"
    store.report(str(path))
    assert path.stat().st_size < 10_000_000
    browser.resize(1280, 900)
    browser.open(path.as_uri())
    shown = browser.run(
        "window.scrollTo(0, document.body.scrollHeight);"
        "for (const one of document.images) one.loading = 'eager';"
        "return Promise.all([...document.images].map((one) => one.decode())).then("
        "() => [...document.images].map((one) => Math.max(one.naturalWidth, one.naturalHeight)));"
    )
    assert shown == [256] * COUNT
    assert [one for one in browser.requested() if not one.startswith("data:image/jpeg")] == [
        path.as_uri()
    ]
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.console() == []


def crops(photographs: list[Path], folder: Path, count: int) -> Path:
    """Write different parts of photographs as files."""
    from PIL import Image

    folder.mkdir()
    for place, path in enumerate(photographs):
        with Image.open(path) as photograph:
            whole = photograph.convert("RGB")
        for number in range(place, count, len(photographs)):
            left, top = number % 40, number // 2 % 40
            part = whole.crop((left, top, left + 360, top + 260))
            part.save(folder / f"{number:03d}.jpg", quality=85)
    return folder


def test_the_gallery_is_filtered_by_its_form(browser, sqlite):
    """A reader writes a label and a probability, and presses Show; empty fields leave no trace."""
    store = SqlLabelStore("warehouse", "product_labels")
    write(store, [tagged("likely", "tabby"), tagged("unlikely", *"abcdefg", "tabby")])
    with application_of({"products": store}) as application, served(application) as url:
        browser.open(f"{url}/")
        browser.click(".stores a")
        browser.click("nav a[href^=gallery]")
        browser.write("[name=label]", "tabby")
        browser.write("[name=max]", "0.3")
        browser.click("form.filter button")
        address = browser.arrive("label=")
        assert address == f"{url}/products/gallery?label=tabby&max=0.3"
        assert browser.run(
            "return [...document.querySelectorAll('.card h3')].map((h) => h.innerText)"
        ) == ["unlikely"]
        assert "tabby" in browser.run("return document.querySelector('.card').innerText")
