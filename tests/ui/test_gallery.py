"""The gallery: its conditions, and its pages from key to key."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from databases import (
    API,
    NOON,
    failed,
    postgres_database,
    sqlite_database,
    tagged,
)
from pictures import Page, write
from starlette.testclient import TestClient
from web import client_of

from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.rows import key_digest

OTHER = "local:lite"
DAY = timedelta(days=1)


def labelled(key: str, day: int, **labels: float) -> TagResult:
    """Return the result of an image of a day after the first one."""
    found = tuple(Label(name.replace("_", " "), share) for name, share in labels.items())
    return TagResult(key, None, found, API, NOON + day * DAY)


OUTCOMES: list[TagResult | Failure] = [
    labelled("cats/one.jpg", 0, cat=0.9, tabby=0.25),
    labelled("cats/two.jpg", 1, tabby=0.8),
    labelled("dogs/Rex.jpg", 2, Dog=0.6, cat=0.1),
    labelled("dogs/100%_real.jpg", 3, German_Shepherd=0.7),
    labelled("sky", 4),
    failed("broken"),
    failed("late", final=False),
    failed("lost", final=False, has_given_up=True),
]
OTHERS = [replace(labelled("cats/one.jpg", 5, Tabby=0.95), api=OTHER)]


@pytest.fixture(scope="module", params=["sqlite", "postgres", "parquet"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """Serve a store of each kind to all tests."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "parquet":
            yield from _filled(ParquetLabelStore(str(folder)))
        elif request.param == "sqlite":
            with sqlite_database(folder, patch):
                yield from _filled(SqlLabelStore("warehouse", "product_labels"))
        else:
            with postgres_database(request.config, patch):
                yield from _filled(SqlLabelStore("warehouse", "product_labels"))


def _filled(store: LabelStore) -> Iterator[TestClient]:
    write(store, OUTCOMES)
    write(store, OTHERS, OTHER)
    with client_of({"products": store}) as client:
        ends = time.monotonic() + 60
        # A dataset is copied first.
        while "refresh" in client.get("/products/gallery").text and time.monotonic() < ends:
            time.sleep(0.05)
        yield client


def shown(client: TestClient, **given: Any) -> set[str]:
    """Return the keys of the images in the gallery, with the interface where it is the other."""
    answer = client.get("/products/gallery", params=given)
    assert answer.status_code == 200
    cards = answer.text.split('<li class="card">')[1:]
    return {_key_of(card) for card in cards}


def _key_of(card: str) -> str:
    found = re.search(r"<h3><a[^>]*>([^<]*)</a>", card)
    assert found is not None
    return f"{found[1]}@{OTHER}" if f">{OTHER} ·" in card else found[1]


ALL = {
    *("cats/one.jpg", f"cats/one.jpg@{OTHER}", "cats/two.jpg", "dogs/Rex.jpg"),
    *("dogs/100%_real.jpg", "sky", "broken", "late", "lost"),
}
CONDITIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, ALL),
    ({"label": "tabby"}, {"cats/one.jpg", f"cats/one.jpg@{OTHER}", "cats/two.jpg"}),
    ({"label": " TABBY "}, {"cats/one.jpg", f"cats/one.jpg@{OTHER}", "cats/two.jpg"}),
    ({"label": "german shepherd"}, {"dogs/100%_real.jpg"}),
    ({"label": "tab"}, set()),
    # The range is that of the label, not of some other label of the image.
    ({"label": "tabby", "max": "0.3"}, {"cats/one.jpg"}),
    ({"label": "tabby", "min": "0,3"}, {"cats/two.jpg", f"cats/one.jpg@{OTHER}"}),
    ({"label": "tabby", "min": "0.8", "max": "0.8"}, {"cats/two.jpg"}),
    ({"max": "0.2"}, {"dogs/Rex.jpg"}),
    ({"min": "0.85"}, {"cats/one.jpg", f"cats/one.jpg@{OTHER}"}),
    ({"q": "CAT"}, {"cats/one.jpg", f"cats/one.jpg@{OTHER}", "cats/two.jpg", "dogs/Rex.jpg"}),
    ({"q": "rex"}, {"dogs/Rex.jpg"}),
    ({"q": "shep"}, {"dogs/100%_real.jpg"}),
    # Signs that a pattern of SQL has, and others that only look like some.
    ({"q": "%_"}, {"dogs/100%_real.jpg"}),
    ({"q": "_one"}, set()),
    ({"q": "/"}, ALL - {"sky", "broken", "late", "lost"}),
    ({"q": "' OR 1=1 --"}, set()),
    ({"api": OTHER}, {f"cats/one.jpg@{OTHER}"}),
    ({"api": "none"}, set()),
    ({"status": "failed"}, {"broken"}),
    ({"status": "waiting"}, {"late"}),
    ({"status": "gave_up"}, {"lost"}),
    ({"status": "tagged", "label": "dog"}, {"dogs/Rex.jpg"}),
    ({"since": "2026-07-04"}, {"dogs/100%_real.jpg", "sky", f"cats/one.jpg@{OTHER}"}),
    # A day is shown to its end, a point in time is exclusive.
    ({"since": "2026-07-02", "until": "2026-07-03"}, {"cats/two.jpg", "dogs/Rex.jpg"}),
    (
        {"since": "2026-07-02", "until": "2026-07-03T12:00:00+00:00"},
        {"cats/two.jpg"},
    ),
    ({"since": "2026-07-06T14:00:00+02:00"}, {f"cats/one.jpg@{OTHER}"}),
    ({"key": "dogs/Rex.jpg"}, {"dogs/Rex.jpg"}),
    ({"key": "dogs/rex.jpg"}, set()),
    ({"q": "cats", "label": "cat", "min": "0.5", "api": API, "status": "tagged"}, {"cats/one.jpg"}),
]


@pytest.mark.parametrize(("given", "keys"), CONDITIONS, ids=[str(given) for given, _ in CONDITIONS])
def test_the_gallery_shows_what_meets_the_conditions(client, given, keys):
    """Each condition alone and together, in each kind of store; the form holds what was given."""
    assert shown(client, **given) == keys
    page = Page(client.get("/products/gallery", params=given).text)
    fields = {str(field["name"]): field["value"] for field in page.all("input")}
    chosen = {field["value"] for field in page.all("option") if "selected" in field}
    for name, value in given.items():
        assert fields.get(name) == value.strip() or value in chosen or value == "none"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"label": "tab"}, {"tabby", "Tabby"}),
        ({"label": "SHEP", "min": "0.1", "status": "tagged"}, {"German Shepherd"}),
        ({"label": "no such label"}, set()),
        # The label is a whole one, and another condition is in the way.
        ({"label": "tabby", "min": "0.99"}, None),
        ({"q": "tab", "key": "none"}, None),
        ({"label": "tabby"}, None),
    ],
    # A set has another order in each process.
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_part_of_a_label_leads_to_the_labels_that_contain_it(client, given, names):
    """Each of them is a link to the same conditions with this label, which has images."""
    text = client.get("/products/gallery", params=given).text
    assert ("Label means the whole label." in text) is (names is not None)
    assert ("Did you mean:" in text) is bool(names)
    links = re.findall(
        r'<a href="gallery\?([^"]*)">([^<]*)</a>', text.partition("Did you mean:")[2]
    )
    proposed = {name: dict(parse_qsl(query.replace("&amp;", "&"))) for query, name in links}
    assert set(proposed) == (names or set())
    for name, conditions in proposed.items():
        assert conditions == given | {"label": name}
        assert shown(client, **conditions)


def test_the_field_offers_the_labels_before_their_page_was_opened(sqlite, client):
    """The commonest ones come first; a store without labels offers none."""
    offered = [
        str(one["value"])
        for one in Page(client.get("/products/gallery").text).all("option")
        if one["value"] in {"tabby", "cat", "Dog", "German Shepherd", "Tabby"}
    ]
    assert set(offered[:2]) == {"tabby", "cat"}
    assert set(offered[2:]) == {"Dog", "German Shepherd", "Tabby"}
    with client_of({"products": SqlLabelStore("warehouse", "empty_labels")}) as empty:
        text = empty.get("/products/gallery").text
    assert '<datalist id="known-labels"></datalist>' in text


@pytest.mark.parametrize(("language", "said"), [("en", "up to and including"), ("zh", "到（含）")])
def test_the_form_says_that_the_greatest_probability_is_included(client, language, said):
    """As the conditions above show: 0.8 is between 0.8 and 0.8."""
    answer = client.get("/products/gallery", params={"lang": language})
    assert f'{said}<input name="max"' in answer.text


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"min": "many"}, "Probability"),
        ({"max": "1.5"}, "Probability"),
        ({"min": "nan"}, "Probability"),
        ({"status": "unfinished"}, "Status"),
        ({"since": "yesterday"}, "Since"),
        ({"until": "2026-13-01"}, "Until"),
        ({"until": "9999-12-31"}, "Until"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "Since"),
    ],
    ids=str,
)
def test_a_condition_that_cannot_be_read_is_named(client, given, word):
    """The page says which one, keeps the form, and shows no image."""
    answer = client.get("/products/gallery", params=given)
    assert answer.status_code == 200
    assert f"A condition cannot be read: {word}." in answer.text
    assert shown(client, **given) == set()
    assert Page(answer.text).all("form")


@pytest.mark.parametrize("name", ["label", "q", "api", "key", "after", "after_api", "since"])
@pytest.mark.parametrize(
    "value", ["\0", "a\0b", "\ud800".encode("utf-8", "surrogatepass"), "x" * 9_000]
)
def test_no_text_in_an_address_breaks_the_gallery(client, name, value):
    """What no store can hold finds nothing, in databases that refuse such texts as well."""
    given = {"after": "0", "after_api": API} if name.startswith("after") else {}
    answer = client.get("/products/gallery", params=given | {name: value})
    assert answer.status_code == 200
    assert client.get("/products/image", params={"key": value}).status_code == 404


def test_pages_go_from_key_to_key(client, monkeypatch):
    """Each image is on one page, in each order of interfaces, and conditions stay."""
    monkeypatch.setattr("airflow_imagetag.ui.web_pages.PAGE_IMAGES", 2)
    address: str | None = "/products/gallery?lang=zh"
    pages: list[list[str]] = []
    while address is not None:
        page = Page(client.get(address).text)
        pages.append([str(a["href"]) for a in page.all("a") if "image?key=" in str(a["href"])][::2])
        onward = [a["href"] for a in page.all("a") if a.get("rel") == "next"]
        assert all("offset" not in str(link) for link in onward)
        address = f"/products/{onward[0]}" if onward else None
    assert [len(found) for found in pages] == [2, 2, 2, 2, 1]
    ownership = [link for found in pages for link in found]
    own, other = ownership[:8], ownership[8:]
    assert own == sorted(set(own))
    assert other == [f"image?key={key_digest('cats/one.jpg')}&lang=zh"]
    filtered = Page(client.get("/products/gallery", params={"label": "tabby"}).text)
    [link] = [str(a["href"]) for a in filtered.all("a") if a.get("rel") == "next"]
    assert "label=tabby" in link
    assert shown(client, **dict(parse_qsl(link.partition("?")[2]))) == {f"cats/one.jpg@{OTHER}"}


def test_a_new_image_moves_no_page(sqlite, monkeypatch):
    """The second page shows the same images, though others come before them meanwhile."""
    monkeypatch.setattr("airflow_imagetag.ui.web_pages.PAGE_IMAGES", 5)
    keys = sorted((f"key {number}" for number in range(20)), key=key_digest)
    store = SqlLabelStore("warehouse", "product_labels")
    write(store, [tagged(key, "x") for key in keys[5:]])
    with client_of({"products": store}) as client:
        page = Page(client.get("/products/gallery").text)
        [onward] = [str(a["href"]) for a in page.all("a") if a.get("rel") == "next"]
        before = client.get(f"/products/{onward}").text
        write(store, [tagged(key, "x") for key in keys[:5]])
        assert client.get(f"/products/{onward}").text == before
    assert keys[10] in before


def test_the_gallery_shows_the_label_that_was_asked_for(sqlite):
    """It stands on the card with its probability, though the image has many likelier ones."""
    many = {f"thing_{number}": 0.9 - number / 100 for number in range(20)}
    store = SqlLabelStore("warehouse", "product_labels")
    write(store, [labelled("a", 0, **many, tabby=0.21)])
    with client_of({"products": store}) as client:
        answer = client.get("/products/gallery?label=Tabby&max=0.3")
    [card] = answer.text.split('<li class="card">')[1:]
    assert ">tabby<" in card
    assert "0.21" in card
    assert "and 16 more" in card


def test_each_image_has_a_page(client):
    """It has the labels of all interfaces side by side, or the error."""
    answer = client.get("/products/image", params={"key": key_digest("cats/one.jpg")})
    for text in (API, OTHER, "Tabby", "0.95", "tabby", "0.25"):
        assert text in answer.text
    late = client.get("/products/image", params={"key": key_digest("late")})
    assert "ServiceUnavailableError" in late.text
    assert client.get("/products/image", params={"key": key_digest("none")}).status_code == 404
