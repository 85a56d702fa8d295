"""The copy of a store for its pages: the same images and labels as those of a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from databases import API, NOON, Database, failed, tagged

from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.stores import (
    DeltaLabelStore,
    LabelStore,
    ParquetLabelStore,
    SqlLabelStore,
    sqlite_copy,
)
from airflow_imagetag.stores.browsing import CopyProgress, ImageFilter, StoredImage
from airflow_imagetag.stores.opening import open_browser
from airflow_imagetag.stores.sqlite_copy import open_copy

OTHER = "picture_classify"

Store = TypeVar("Store", bound=LabelStore)


class Foreign(ParquetLabelStore):
    """A store of another package, which only has frames."""

    _stored_rows = LabelStore._stored_rows  # type: ignore[assignment]


def waiting(key: str, minute: int, **given: Any) -> Failure:
    """Return a failure that may pass."""
    at = NOON + timedelta(minutes=minute)
    return failed(key, final=False, first_failed_at=at, next_try_at=at, tries=2, **given)


def batches() -> Iterator[tuple[str, list[TagResult | Failure]]]:
    """Yield batches in which images are labelled again, fail, and wait."""
    yield API, [tagged(f"key {number}", "cat", f"own {number}", "x") for number in range(30)]
    yield API, [tagged("key 1", "dog", version="2", minute=1), failed("key 2", version="2")]
    yield API, [waiting("key 3", 2), waiting("key 4", 2, version="2"), waiting("new", 2)]
    yield OTHER, [replace(found, api=OTHER) for found in (tagged("key 1", "w"), tagged("none"))]
    named = Label("cat", 0.5, "animal", "pet", "album", original="猫")
    film = Label("cat", 0.5, "film")
    yield API, [TagResult("named", None, (named, film), API, NOON)]
    yield API, [tagged("key 4", "y", version="2", minute=3), tagged("new", "z", minute=3)]
    yield API, [waiting("key 4", 4, version="3"), waiting("key 1", 4, version="3")]


def written(store: Store) -> Store:
    """Return a store that holds the batches."""
    for api, outcomes in batches():
        with store.open(api) as opened:
            opened.write(outcomes)
    return store


def shown(store: LabelStore) -> list[StoredImage]:
    """Return all images as the pages show them."""
    with open_browser(store) as browser:
        assert list(browser.apis()) == [API, OTHER]
        page = browser.page(ImageFilter(), None, 200)
        images = list(page.images)
        # On a busy machine, the time of a page may be over before its end; nothing else cuts it.
        while page.after is not None:
            assert page.is_cut
            page = browser.page(ImageFilter(), page.after, 200)
            images += page.images
        return images


MAKERS: dict[str, Callable[[Path], ParquetLabelStore | DeltaLabelStore]] = {
    "parquet": lambda folder: ParquetLabelStore(str(folder)),
    "delta": lambda folder: DeltaLabelStore(str(folder)),
    "foreign": lambda folder: Foreign(str(folder)),
}


@pytest.mark.parametrize("is_compacted", [False, True], ids=["as written", "compacted"])
@pytest.mark.parametrize("kind", MAKERS)
def test_pages_show_the_same_as_those_of_a_database(
    tmp_path: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch, kind: str, is_compacted: bool
):
    """The latest row of each image, with the labels that count, however often it was written."""
    if kind == "delta":
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
    # Labels are numbered anew after a few.
    monkeypatch.setattr(sqlite_copy, "MAX_NAMES", 3)
    store = written(MAKERS[kind](tmp_path / "lake"))
    if is_compacted:
        store.compact()
    expected = shown(written(SqlLabelStore("warehouse", "product_labels")))
    assert len(expected) == 34
    assert shown(store) == expected


def test_a_store_that_is_empty_is_copied(tmp_path: Path):
    """Its pages have no images."""
    with open_copy(ParquetLabelStore(str(tmp_path / "none"))) as browser:
        assert not browser.apis()
        assert not browser.day_counts().rows
        assert not browser.page(ImageFilter(), None, 10).images


def test_the_copy_tells_how_far_it_is(tmp_path: Path):
    """The number of images first; then of how many of those with labels they were read."""
    progress = CopyProgress()
    with open_browser(written(ParquetLabelStore(str(tmp_path / "lake"))), progress):
        assert (progress.images, progress.with_labels, progress.labelled) == (41, 32, 32)
