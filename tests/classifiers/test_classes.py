"""Names of classes: files of lines and of JSON, a model's metadata, ImageNet."""

from __future__ import annotations

import json

import pytest

from airflow_imagetag.classifiers.classes import (
    imagenet_names,
    names_in_metadata,
    parse_names,
)
from airflow_imagetag.errors import ConfigurationError

CATS = ("cat", "tiger cat", "lynx")


@pytest.mark.parametrize(
    "text",
    [
        "cat\ntiger cat\nlynx\n",
        "\ufeffcat\r\ntiger cat\r\nlynx",
        json.dumps(CATS),
        '{"0": "cat", "1": "tiger cat", "2": "lynx"}',
        '{"2": "lynx", "0": "cat", "1": "tiger cat"}',
        '{"model_type": "resnet", "id2label": {"0": "cat", "1": "tiger cat", "2": "lynx"}}',
    ],
)
def test_each_form_of_a_file_gives_the_names(text):
    """Lines, a list, numbers and names, and a configuration with them."""
    assert parse_names(text.encode(), "classes") == CATS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no names"),
        (b"cat\n\nlynx", "no name for class 1"),
        (b"cat\xff", "UTF-8"),
        (b"[1, 2]", "no name for class 0"),
        (b"[", "not valid JSON"),
        (b'{"a": "cat"}', "numbers of the classes as keys"),
        (b'{"1": "cat", "2": "lynx"}', "from 0 to 1"),
        (b'{"0": "cat", "00": "lynx"}', "from 0 to 1"),
        (b'["\\ud800"]', "no text"),
        (b"x" * 201, "201 characters"),
    ],
)
def test_a_wrong_file_is_refused(content, message):
    """The message says which class, or what the file must hold."""
    with pytest.raises(ConfigurationError, match=message):
        parse_names(content, "classes")


@pytest.mark.parametrize(
    "value", ['["cat", "tiger cat", "lynx"]', "{0: 'cat', 1: 'tiger cat', 2: 'lynx'}"]
)
def test_names_in_the_metadata_of_a_model(value):
    """Exporters write JSON or a dict of Python, of which only literals are read."""
    assert names_in_metadata({"names": value, "author": "x"}, "the model") == CATS
    assert names_in_metadata({"author": "x"}, "the model") is None


def test_imagenet_has_a_thousand_distinct_names():
    """Where two classes share a first synonym, they have other names."""
    names = imagenet_names()
    assert len(names) == len(set(names)) == 1000
    assert (names[282], names[967], names[872]) == ("tiger cat", "espresso", "tripod")
