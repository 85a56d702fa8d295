"""One value that names an image."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_imagetag.errors import InvalidImageError
from airflow_imagetag.models import Image
from airflow_imagetag.sources.items import as_image, is_missing, name_of

BYTES = b"\xff\xd8\xff"
DIGEST = f"sha256:{hashlib.sha256(BYTES).hexdigest()}"
NOTHING = [None, float("nan"), np.nan, np.float32("nan"), pd.NA, pd.NaT, Decimal("NaN")]
NOTHING_IDS = ["None", "float nan", "numpy nan", "float32 nan", "NA", "NaT", "Decimal nan"]


@pytest.mark.parametrize(
    ("item", "image"),
    [
        ("https://h/a.jpg", Image("https://h/a.jpg", "https://h/a.jpg")),
        ("  /data/a.jpg\n", Image("  /data/a.jpg\n", "  /data/a.jpg\n")),
        (Path("/data/a.jpg"), Image("/data/a.jpg", "/data/a.jpg")),
        (np.str_("s3://b/a.jpg"), Image("s3://b/a.jpg", "s3://b/a.jpg")),
        ("https://h/a?sig=x&id=1", Image("https://h/a?id=1", "https://h/a?sig=x&id=1")),
        (BYTES, Image(DIGEST, content=BYTES)),
        (bytearray(BYTES), Image(DIGEST, content=BYTES)),
        (memoryview(BYTES), Image(DIGEST, content=BYTES)),
        (b"", Image(f"sha256:{hashlib.sha256(b'').hexdigest()}", content=b"")),
        (Image("k", "u", BYTES, "1"), Image("k", "u", BYTES, "1")),
        (Image("k", " u "), Image("k", " u ")),
        ({"image_uri": "u"}, Image("u", "u")),
        ({"image_key": "k", "image_uri": "u"}, Image("k", "u")),
        ({"image_key": 7, "image_uri": "u"}, Image("7", "u")),
        ({"image_key": 0, "image_uri": "u"}, Image("0", "u")),
        ({"image_key": "k", "image_uri": "u", "version": 3}, Image("k", "u", None, "3")),
        ({"image_key": "k", "content": BYTES}, Image("k", None, BYTES)),
        ({"image_key": "k", "content": BYTES, "image_uri": "u"}, Image("k", "u", BYTES)),
        ({"content": bytearray(BYTES)}, Image(DIGEST, None, BYTES)),
        ({"image_uri": Path("/a"), "other": 1}, Image("/a", "/a")),
    ],
)
def test_the_forms_of_an_image(item, image):
    """A URI, a path, bytes, a dict or an Image; without a key, the URI or the digest names it."""
    found = as_image(item)
    assert found == image
    assert type(found.uri) in (str, type(None))
    assert type(found.content) in (bytes, type(None))


@pytest.mark.parametrize("nothing", NOTHING, ids=NOTHING_IDS)
def test_missing_values_of_every_kind(nothing):
    """A missing URI is no image, a missing key names none, a missing version is none."""
    assert is_missing(nothing)
    with pytest.raises(InvalidImageError, match="no URI"):
        as_image({"image_key": "k", "image_uri": nothing})
    with pytest.raises(InvalidImageError, match="'image_key' is null"):
        as_image({"image_key": nothing, "image_uri": "u"})
    with pytest.raises(InvalidImageError):
        as_image(nothing)
    item = {"image_key": "k", "image_uri": nothing, "content": BYTES, "version": nothing}
    assert as_image(item) == Image("k", None, BYTES)
    item = {"image_key": "k", "image_uri": "u", "content": nothing}
    assert as_image(item) == Image("k", "u")


@pytest.mark.parametrize(
    "value", ["", "nan", 0, False, b"", [], {}, np.array([1.0, np.nan]), pd.Series([1]), object()]
)
def test_a_value_is_not_missing(value):
    """Empty is not missing, and a comparison that has no answer does no harm."""
    assert not is_missing(value)


@pytest.mark.parametrize(
    "item",
    [
        "",
        "  ",
        5,
        True,
        1.5,
        ...,
        ("u",),
        {},
        {"uri": "u"},
        {"image_uri": ""},
        {"image_uri": 5},
        {"image_uri": b"u"},
        {"image_uri": ["u"]},
        {"image_key": "", "image_uri": "u"},
        {"image_key": "k", "content": "text"},
        {"image_key": "k", "content": [1]},
        {"image_key": "k", "image_uri": "u", "content": "text"},
        Image("k"),
        Image("k", ""),
        Image("", "u"),
        Image("k", content="text"),  # type: ignore[arg-type]
        "/data/\ud800.jpg",
        {"image_key": "\ud800", "image_uri": "u"},
        {"image_key": "k", "image_uri": "u", "version": "\ud800"},
    ],
    ids=lambda item: ascii(item)[:50],
)
def test_a_value_is_no_image(item):
    """A wrong value is this entry's error; text that no table can store is wrong as well."""
    with pytest.raises(InvalidImageError) as caught:
        as_image(item)
    caught.value.message.encode()


def test_columns_may_have_other_names():
    """Key and URI are found under the names given, and the error says which were looked for."""
    item = {"id": 5, "url": "u", "image_key": "no", "image_uri": "no"}
    assert as_image(item, "id", "url") == Image("5", "u")
    with pytest.raises(InvalidImageError, match="'url'"):
        as_image(5, "id", "url")


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (5, "item 3"),
        ({"image_key": None}, "item 3"),
        ({"image_key": pd.NA}, "item 3"),
        ({"image_key": "k"}, "k"),
        ({"image_key": 7}, "7"),
        ({"image_key": "https://h/a?sig=x"}, "https://h/a?sig=x"),
        ({"image_key": "a\nb\ud800"}, "a\nb?"),
        ({"image_key": ""}, "item 3"),
        ({"image_key": None, "image_uri": "u"}, "item 3"),
        ({"image_uri": "https://h/a\ud800?sig=x"}, "https://h/a?"),
        (Image("k"), "k"),
        ("https://u:pw@h/\ud800", "https://***@h/?"),
        (" \u3000", "item 3"),
    ],
)
def test_the_name_of_a_wrong_entry(item, name):
    """A wrong entry is named by its key, by its URI without credentials, or by its place."""
    assert name_of(item, "image_key", "image_uri", 3) == name
