"""The report of a store: one file that needs nothing else."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from databases import Database, failed, tagged
from pictures import Page, attacked, photographed, write

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator


@pytest.fixture(params=["sqlite", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store that answers pages itself, and one that is copied."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue("sqlite")
    return SqlLabelStore("warehouse", "product_labels")


@pytest.fixture
def allowed(photographs: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Allow the folder of the photographs."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(photographs[0].parent))
    return photographs


def report_of(store: LabelStore, tmp_path: Path, **parameters: Any) -> Page:
    """Write the report of a store and read it."""
    path = tmp_path / "report" / "labels.html"
    store.report(str(path), **parameters)
    return Page(path.read_text(encoding="utf-8"))


def test_a_report_shows_pictures_labels_and_failures(store, tmp_path, allowed):
    """The file holds small pictures, numbers, labels with their probabilities, and each cause."""
    from PIL import Image

    write(store, [*photographed(allowed, 12), failed("broken"), failed("late", final=False)])
    page = report_of(store, tmp_path)
    sources = [str(image["src"]) for image in page.all("img")]
    assert len(sources) == 12
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert max(picture.size) <= 256
            assert not picture.getexif()
    for text in ("tabby", "ImageDecodeError", "ServiceUnavailableError", "-1301", "0.04"):
        assert text in page.text


def test_a_report_leads_nowhere(store, tmp_path, allowed):
    """It has no script, no form and no address outside itself, and a policy that forbids them."""
    write(store, photographed(allowed, 3))
    page = report_of(store, tmp_path)
    assert {tag for tag, _ in page.elements} & {
        "script",
        "iframe",
        "form",
        "link",
        "object",
    } == set()
    addresses = [
        str(value)
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset", "poster")
    ]
    assert addresses
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in addresses)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    [policy] = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert str(policy).startswith("default-src 'none'")


def test_hostile_texts_stay_texts(store, tmp_path):
    """Labels, keys and messages that hold HTML, controls and marks of direction are only shown."""
    write(store, attacked(48))
    page = report_of(store, tmp_path)
    assert {tag for tag, _ in page.elements} & {"script", "iframe", "textarea", "object"} == set()
    assert page.all("img") == []
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not {letter for letter in page.text if letter in "\0\x07\x1b\u202e\u2066\u2028"}
    assert max(map(len, page.words)) < 40_000


def test_a_picture_that_may_not_be_read_says_so(store, tmp_path, photographs):
    """A local file outside the allowed folders, a URL and missing URIs each have their reason."""
    uris = (str(photographs[0]), "https://shop.example/a.jpg", None)
    write(store, [tagged(f"key {place}", "x", uri=uri) for place, uri in enumerate(uris)])
    page = report_of(store, tmp_path)
    assert page.all("img") == []
    for reason in ("is not allowed", "fetches no URLs", "holds no URI"):
        assert reason in page.text


def test_a_report_keeps_its_bounds(store, tmp_path, allowed):
    """It shows at most so many images, and pictures of at most so many bytes."""
    write(store, photographed(allowed, 12))
    assert len(report_of(store, tmp_path, max_images=5).all("img")) == 5
    page = report_of(store, tmp_path, max_megabytes=0.02)
    assert 0 < len(page.all("img")) < 12
    assert "the file would be too large" in page.text


def test_a_report_in_chinese(store, tmp_path):
    """All words of the pages are Chinese, and the labels stay as they are."""
    write(store, [tagged("a", "x")])
    page = report_of(store, tmp_path, language="zh")
    assert page.all("html") == [{"lang": "zh"}]
    assert "概览" in page.text
    assert "Overview" not in page.text


def test_an_empty_store_has_a_report(store, tmp_path):
    """A store that does not exist yet is said to hold no images."""
    assert "holds no images" in report_of(store, tmp_path).text


@pytest.mark.parametrize(
    "parameters", [{"max_images": -1}, {"max_megabytes": "x"}, {"language": "fr"}], ids=str
)
def test_a_wrong_parameter_is_named(sqlite: Database, tmp_path, parameters):
    """A value that no report can have is refused before the store is read."""
    [name] = parameters
    with pytest.raises(ConfigurationError, match=name):
        SqlLabelStore("warehouse").report(str(tmp_path / "x.html"), **parameters)


def test_a_path_that_cannot_be_written_is_named(sqlite: Database, tmp_path):
    """The message names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/x\.html"):
        SqlLabelStore("warehouse").report(str(tmp_path / "file" / "x.html"))


def test_the_operator_writes_a_report(emulator: Emulator, tmp_path, small_jpegs):
    """The file is there at the end of a run; without a store the parameter is refused."""
    path = tmp_path / "report.html"
    images = [{"image_key": str(n), "content": content} for n, content in enumerate(small_jpegs(3))]
    store = ParquetLabelStore(f"{tmp_path}/lake")
    operator = ImageTagOperator(task_id="x", images=images, store=store, report=str(path))
    assert operator.execute({})["tagged"] == 3
    assert Page(path.read_text()).text.count("picture_classify") >= 3
    without = ImageTagOperator(task_id="x", images=images, report=str(path))
    with pytest.raises(ConfigurationError, match="needs a store"):
        without.execute({})
