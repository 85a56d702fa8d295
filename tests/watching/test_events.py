"""The events of a trigger: the same after JSON, and told apart from other values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.models import Image
from airflow_imagetag.watching.events import (
    FAILED,
    MAX_EVENT_IMAGES,
    TIMED_OUT,
    Event,
    failed,
    found,
    parse_event,
)

MOST = MAX_EVENT_IMAGES


def images(count: int) -> list[Image]:
    """Return this number of images."""
    return [Image(f"key {n}", f"s3://photos/{n}.jpg", version="v") for n in range(count)]


EVENTS = [
    found(images(2), is_all=True),
    found(images(MOST + 1), is_all=False),
    failed(ConfigurationError("No such table.")),
    Event(TIMED_OUT, 3),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_the_same_after_json(event: Event):
    """Airflow keeps it as JSON between trigger and task."""
    assert parse_event(json.loads(json.dumps(event.payload()))) == event


@pytest.mark.parametrize(
    ("count", "shown"), [(0, 0), (1, 1), (MOST, MOST), (MOST + 1, MOST), (9_999, MOST)]
)
def test_an_event_is_small(count: int, shown: int):
    """It counts all images and holds the first of them."""
    event = found(images(count), is_all=True)
    assert event.count == count
    assert [image["image_key"] for image in event.images] == [f"key {n}" for n in range(shown)]
    assert event.is_complete == (count <= MOST)
    assert len(json.dumps(event.payload())) < 75_000


def test_a_list_that_lacks_an_image_is_not_complete():
    """There are more images, or reading one takes a value that an event must not hold."""
    assert found(images(3), is_all=True).is_complete
    assert not found(images(3), is_all=False).is_complete
    secret = Image("a", "https://user:secret@shop/a.jpg?X-Amz-Signature=abc")
    event = found([*images(3), secret], is_all=True)
    assert not event.is_complete
    assert "secret" not in str(event)
    assert "abc" not in str(event)
    assert not found([Image("a", content=b"bytes")], is_all=True).is_complete


def test_a_failure_names_its_class():
    """The task raises the same class."""
    event = failed(ConfigurationError("No such table."))
    assert (event.status, event.error) == (FAILED, "ConfigurationError")
    assert event.message == "No such table."


GOOD = found(images(1), is_all=True).payload()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "success",
        5,
        [],
        {},
        {"status": "success"},
        {"images": []},
        GOOD | {"status": "done"},
        GOOD | {"status": None},
        GOOD | {"status": ["success"]},
        GOOD | {"images": None},
        GOOD | {"images": 7},
        GOOD | {"extra": 1},
        {"status": {}, "images": [], "count": 1},
    ],
)
def test_another_value_is_not_an_event(payload: Any):
    """A trigger of another version or another program may have sent it."""
    with pytest.raises(ImageTagError, match="not send an event of NewImagesTrigger"):
        parse_event(payload)
