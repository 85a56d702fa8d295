"""Labels under other names: renamed, dropped, merged, and in which order with the other choices."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_imagetag.engine.output.label_filter import LabelFilter
from airflow_imagetag.engine.output.label_mapping import (
    LabelMapping,
    MappingEntry,
    label_mapping_of,
)
from airflow_imagetag.engine.output.label_rows import LabelRows
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure, Label, TagResult

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SKY, CLOUD, MARK = Label("天空", 0.9), Label("云", 0.6), Label("水印", 0.3)


def mapping(**names: str | None) -> LabelMapping:
    """Make a taxonomy."""
    return label_mapping_of((MappingEntry(*pair) for pair in names.items()), "label_map")


def told(labels) -> list[tuple[str, str | None]]:
    """Return name and original name of each label."""
    return [(label.name, label.original) for label in labels]


def result(*labels: Label) -> TagResult:
    """Make an answer."""
    return TagResult("a", None, labels, "picture_classify", NOW)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, [("天空", None), ("云", None), ("水印", None)]),
        ({"天空": "sky"}, [("sky", "天空"), ("云", None), ("水印", None)]),
        ({"天空": "天空"}, [("天空", None), ("云", None), ("水印", None)]),
        ({"天空": None, "水印": ""}, [("云", None)]),
        ({"天空": " \t"}, [("云", None), ("水印", None)]),
        ({" 天空 ": " sky\n"}, [("sky", "天空"), ("云", None), ("水印", None)]),
        ({"天空": "云", "云": "天空"}, [("云", "天空"), ("天空", "云"), ("水印", None)]),
        ({"*": None}, []),
        ({"天空": "sky", "*": None}, [("sky", "天空")]),
        ({"云": "云", "*": None}, [("云", None)]),
        ({"天空": None, "*": "other"}, [("other", "云")]),
        ({"of another service": "x"}, [("天空", None), ("云", None), ("水印", None)]),
    ],
)
def test_what_becomes_of_labels(names, expected):
    """A label gets its name, is dropped without one, and stays where the map has no word on it."""
    assert told(mapping(**names)([SKY, CLOUD, MARK])) == expected


def test_labels_of_one_name_become_the_most_probable_one():
    """Also where the service itself used that name; whose original is kept is the one that wins."""
    both = mapping(天空="sky", 云="sky")
    [merged] = both([SKY, CLOUD])
    assert (merged.name, merged.probability, merged.original) == ("sky", 0.9, "天空")
    [merged] = both([Label("sky", 0.95, "Nature"), SKY, CLOUD])
    assert (merged.probability, merged.category, merged.original) == (0.95, "Nature", None)


def test_labels_are_merged_within_a_scene_only():
    """The labels of two scenes stay two labels."""
    labels = [
        Label(name, probability, scene=scene)
        for name, probability, scene in (
            ("天空", 0.9, "WEB"),
            ("云", 0.8, "NEWS"),
            ("云", 0.7, "WEB"),
            ("天空", 0.6, "NEWS"),
        )
    ]
    merged = mapping(天空="sky", 云="sky")(labels)
    assert [(label.original, label.scene) for label in merged] == [("天空", "WEB"), ("云", "NEWS")]


def test_the_other_fields_stay():
    """Only the name changes."""
    [label] = mapping(天空="sky")([Label("天空", 0.5, "风景", "自然", "WEB")])
    assert label == Label("sky", 0.5, "风景", "自然", "WEB", "天空")


def rows(outcome, *, originals=True) -> list[tuple]:
    """Return the rows that an outcome makes in a frame."""
    collected = LabelRows(originals=originals)
    collected.add([outcome])
    frame = collected.frame()
    names = ["label", "rank", "probability", *(["original_label"] if originals else [])]
    filled = frame[names].astype(object).where(frame[names].notna(), None)
    return list(filled.itertuples(index=False, name=None))


def test_ranks_count_what_is_left():
    """After labels were dropped and merged, ranks are 1, 2, 3."""
    labels = (MARK, SKY, CLOUD, Label("草", 0.2))
    chosen = LabelFilter(mapping=mapping(水印=None, 天空="sky", 云="sky"))(result(*labels))
    assert rows(chosen) == [("sky", 1, 0.9, "天空"), ("草", 2, 0.2, None)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["sky", "grass", "person"]),
        # Counts the kept labels, not those of the service.
        ({"top_k": 2}, ["sky", "grass"]),
        ({"min_probability": 0.5}, ["sky"]),
        # A label that is not probable enough is not merged into another.
        ({"min_probability": 0.65, "top_k": 1}, ["sky"]),
    ],
)
def test_order_of_the_choices(options, expected):
    """First the probability, then the map, then the number of labels."""
    labels = (
        Label("水印", 0.95),
        Label("天空", 0.7),
        Label("云", 0.6),
        Label("草", 0.4),
        Label("人", 0.3),
    )
    names = mapping(水印=None, 天空="sky", 云="sky", 草="grass", 人="person")
    chosen = LabelFilter(mapping=names, **options)(result(*labels))
    assert isinstance(chosen, TagResult)
    assert [label.name for label in chosen.labels] == expected


def test_an_image_whose_labels_are_all_dropped_is_tagged():
    """With no labels, as one in which the service sees nothing."""
    chosen = LabelFilter(mapping=mapping(**{"*": None}))(result(SKY, CLOUD))
    assert chosen == result()


def test_failures_pass():
    """A failure has no labels to rename."""
    failure = Failure("a", None, "ImageDecodeError", "-1102", "no", 1, NOW)
    assert LabelFilter(mapping=mapping(天空="sky"))(failure) is failure


def test_without_a_map_the_frame_has_no_further_column():
    """The columns that were promised, and no other."""
    assert rows(LabelFilter()(result(SKY)), originals=False) == [("天空", 1, 0.9)]
    assert "original_label" not in LabelRows().frame().columns


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [
                MappingEntry("天空", "sky", 2),
                MappingEntry("云", "cloud", 3),
                MappingEntry("天空", "heaven", 7),
            ],
            "x.csv, line 7: the label '天空' has the name 'heaven' here and 'sky' in line 2",
        ),
        (
            [MappingEntry("天空", "sky"), MappingEntry("天空 ", None)],
            "has the name None here and 'sky' before",
        ),
        ([MappingEntry("", "sky", 4)], "x.csv, line 4: the name 'sky' has no label beside it"),
        ([MappingEntry(None, "sky")], "the name 'sky' has no label"),
        ([MappingEntry("天空", 7)], "'天空' has 7"),
        ([MappingEntry("天空", ["sky"])], "must be texts"),
        ([MappingEntry(7, "sky")], "must be texts"),
        ([MappingEntry("天空", "\ud83d")], "holds half of a character"),
        ([MappingEntry("\ud83d", "x")], "holds half of a character"),
    ],
)
def test_a_wrong_entry_is_named(entries, message):
    """The error says which entry is wrong, and where it stands."""
    with pytest.raises(ConfigurationError) as caught:
        label_mapping_of(entries, "x.csv")
    assert message in caught.value.message


def test_the_same_entry_twice_is_no_fault():
    """It says the same."""
    names = label_mapping_of(
        [MappingEntry("天空", "sky", 2), MappingEntry("天空", "sky ", 3)], "x.csv"
    )
    assert told(names([SKY])) == [("sky", "天空")]
