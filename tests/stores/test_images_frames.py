"""The images of a store as frames."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from databases import API, NOON, failed, tagged

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.frames import IMAGE_COLUMNS
from airflow_imagetag.stores import (
    DeltaLabelStore,
    LabelStore,
    ParquetLabelStore,
    SqlLabelStore,
)


@pytest.fixture(params=["postgres", "sqlite", "parquet", "delta"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store of each kind."""
    if request.param == "delta":
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
        return DeltaLabelStore(f"{tmp_path}/lake")
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse", "product_labels")


def test_images_are_one_row_for_each_image_and_interface(store: LabelStore):
    """The latest row of each, with its state, in frames of the documented columns and types."""
    assert list(store.images()) == []
    with store.open(API) as opened:
        opened.write([tagged("a", "x", version="1")])
        opened.write(
            [
                tagged("a", "x", "y", version="2", minute=5, content_sha256="00"),
                failed("b"),
                failed("c", final=False, first_failed_at=NOON, next_try_at=NOON, tries=2),
            ]
        )
    with store.open("picture_classify") as opened:
        opened.write([tagged("a", uri=None)])
    frames = list(store.images(frame_rows=2))
    assert len(frames) >= 2
    for frame in frames:
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == dict(IMAGE_COLUMNS)
    images = pd.concat(frames).sort_values(["api", "image_key"])
    assert images[["api", "image_key", "version", "status", "labels"]].values.tolist() == [
        [API, "a", "2", "tagged", 2],
        [API, "b", "", "failed", 0],
        [API, "c", "", "waiting", 0],
        ["picture_classify", "a", "", "tagged", 0],
    ]
    assert images["code"].tolist()[1:3] == ["-1301", "503"]
    assert images["tries"].tolist()[2] == 2
    assert images["next_try_at"].tolist()[2] == NOON
    assert images["image_uri"].isna().tolist() == [False, False, False, True]


def test_a_store_of_another_package_may_have_no_images(tmp_path):
    """It goes on to work, and says what a report needs."""

    class Plain(ParquetLabelStore):
        images = LabelStore.images
        _stored_rows = LabelStore._stored_rows  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="Plain does not tell its images"):
        Plain(f"{tmp_path}/lake").report(f"{tmp_path}/x.html")
