"""Labels and failures as DataFrames."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest
from xcoms import through_xcom

from airflow_imagetag.engine.output.label_filter import LabelFilter
from airflow_imagetag.engine.output.label_rows import failures_frame
from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.operators.writers import Collected, FrameWriter

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
STRING, TIME = "string", "datetime64[us, UTC]"
LABELS = {
    "image_key": STRING,
    "image_uri": STRING,
    "label": STRING,
    "probability": "float64",
    "rank": "int64",
    "category": STRING,
    "subcategory": STRING,
    "scene": STRING,
    "api": STRING,
    "tagged_at": TIME,
}
FAILURES = {
    "image_key": STRING,
    "image_uri": STRING,
    "error": STRING,
    "code": STRING,
    "message": STRING,
    "attempts": "int64",
    "failed_at": TIME,
}


def result(key: str, *labels: Label, uri: str | None = "u", at: datetime = NOW) -> TagResult:
    """Make a result."""
    return TagResult(key, uri, labels, "picture_classify", at)


def failure(key: str, code: str | None = "-1102", uri: str | None = None) -> Failure:
    """Make a failure."""
    return Failure(key, uri, "ImageDecodeError", code, "cannot be decoded", 2, NOW)


FULL = Label("天空", 0.75, "风景", "自然", "WEB")
FILLED = [result("a", FULL, Label("Person", 0.5)), failure("b"), failure("c", None, "u")]
EMPTY_CELLS = [result("a", Label("x", 1.0), uri=None), failure("b", None)]
CASES = pytest.mark.parametrize(
    "outcomes",
    [[], FILLED, EMPTY_CELLS, [result("a")]],
    ids=["empty", "filled", "no optional cells", "no labels"],
)


def collected(*outcomes: Outcome) -> Collected:
    """Return outcomes collected in memory."""
    found = Collected()
    FrameWriter(found, LabelFilter(), max_rows=100).collect(outcomes)
    return found


def frames(outcomes) -> list[tuple[pd.DataFrame, dict[str, str]]]:
    """Return both frames of the outcomes with the columns that they must have."""
    found = collected(*outcomes)
    return [(found.labels.frame(), LABELS), (failures_frame(found.failures), FAILURES)]


def types(frame: pd.DataFrame) -> dict[str, str]:
    """Return the columns and their types."""
    return {str(column): str(dtype) for column, dtype in frame.dtypes.items()}


def expected(columns: dict[str, str]) -> dict[str, str]:
    """Return the columns with their types in pandas' own words."""
    return {name: str(pd.Series([], dtype=dtype).dtype) for name, dtype in columns.items()}


@CASES
def test_columns_and_types(outcomes):
    """Both frames have their columns, in order, with the same types, however little is in them."""
    for frame, columns in frames(outcomes):
        assert list(frame.columns) == list(columns)
        assert types(frame) == expected(columns)
        assert isinstance(frame.index, pd.RangeIndex)


@CASES
def test_an_xcom_keeps_the_types(outcomes):
    """Airflow's own serializer of XComs gives back an equal frame."""
    for frame, columns in frames(outcomes):
        again = through_xcom(frame)
        assert types(again) == expected(columns)
        pd.testing.assert_frame_equal(again, frame)


def test_one_row_for_each_label():
    """Rows are in the order of the images and their labels; an image without labels has none."""
    found = collected(
        result("a", Label("x", 0.9), Label("y", 0.1)),
        result("b"),
        failure("c"),
        result("d", FULL, uri=None),
    )
    frame = found.labels.frame()
    assert frame["image_key"].tolist() == ["a", "a", "d"]
    assert frame["label"].tolist() == ["x", "y", "天空"]
    assert frame["probability"].tolist() == [0.9, 0.1, 0.75]
    assert frame["rank"].tolist() == [1, 2, 1]
    assert frame["image_uri"].isna().tolist() == [False, False, True]
    assert frame["category"].tolist()[2:] == ["风景"]
    assert [frame.loc[2, column] for column in ("subcategory", "scene")] == ["自然", "WEB"]
    assert frame["scene"].isna().tolist() == [True, True, False]
    assert frame["tagged_at"].tolist() == [pd.Timestamp(NOW)] * 3
    assert failures_frame(found.failures)["image_key"].tolist() == ["c"]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [("x", 1), ("y", 2), ("z", 3)]),
        ({"min_probability": 0.5}, [("x", 1), ("y", 2)]),
        ({"min_probability": 0.51}, [("x", 1)]),
        ({"min_probability": 1.0}, []),
        ({"top_k": 2}, [("x", 1), ("y", 2)]),
        ({"top_k": 9}, [("x", 1), ("y", 2), ("z", 3)]),
        ({"top_k": 2, "min_probability": 0.6}, [("x", 1)]),
    ],
)
def test_the_labels_that_are_kept(options, rows):
    """A smallest probability and a largest number; the rank counts the kept labels."""
    image = result("a", Label("x", 0.9), Label("y", 0.5), Label("z", 0.1))
    frame = collected(LabelFilter(**options)(image)).labels.frame()
    assert list(zip(frame["label"], frame["rank"], strict=True)) == rows
    assert types(frame) == expected(LABELS)


def test_a_failure_keeps_its_fields():
    """Each column is the field of that name."""
    frame = failures_frame([failure("a", None), failure("b", "-1102", "https://h/a.jpg")])
    row = frame.iloc[1].to_dict()
    assert row == {
        "image_key": "b",
        "image_uri": "https://h/a.jpg",
        "error": "ImageDecodeError",
        "code": "-1102",
        "message": "cannot be decoded",
        "attempts": 2,
        "failed_at": pd.Timestamp(NOW),
    }
    assert frame["code"].isna().tolist() == [True, False]


def test_times_are_utc():
    """A time of another zone is the same moment in UTC."""
    found = collected(result("a", FULL, at=NOW.astimezone(timezone(timedelta(hours=8)))))
    assert found.labels.frame()["tagged_at"].tolist() == [pd.Timestamp(NOW)]
