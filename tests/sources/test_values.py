"""Images given as values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_imagetag.errors import ConfigurationError, DuplicateKeyError, InvalidImageError
from airflow_imagetag.models import Image, RejectedImage, SkippedImage
from airflow_imagetag.sources.values import ValueImages

URLS = ["https://h/1.jpg", "https://h/2.jpg", "https://h/3.jpg"]
PRESIGNED = "https://h/1.jpg?X-Amz-Signature=5ecre7&X-Amz-Date=1"


def entries(value: Any, key: str = "image_key", uri: str = "image_uri") -> list[Any]:
    """Return the entries of a value."""
    return list(ValueImages(value).with_columns(key, uri).entries())


def is_no_data(value: Any) -> bool:
    """Tell that no value came from an XCom."""
    return False


def keys(value: Any) -> list[str]:
    """Return the keys of a value that holds nothing but good images."""
    found = entries(value)
    assert all(isinstance(entry, Image) for entry in found), found
    return [entry.key for entry in found]


@pytest.mark.parametrize(
    "value",
    [
        URLS,
        tuple(URLS),
        [URLS[:1], URLS[1:]],
        [[URLS[0]], [[URLS[1]], []], URLS[2]],
        np.array(URLS, dtype=object),
        pd.Series(URLS),
        pd.Series(URLS, index=[5, 6, 7], dtype="string"),
        dict.fromkeys(URLS).keys(),
        [{"image_uri": url} for url in URLS],
        [Image(url, url) for url in URLS],
        json.dumps(URLS),
        "\n  " + json.dumps(URLS, indent=2),
        json.dumps([{"image_uri": url} for url in URLS]),
        pd.DataFrame({"image_key": URLS, "image_uri": URLS}),
        pd.DataFrame({"image_uri": URLS, "other": 1, "image_key": URLS}, index=[0, 0, 0]),
        [pd.DataFrame({"image_key": URLS, "image_uri": URLS})],
    ],
    ids=lambda value: type(value).__name__,
)
def test_many_images(value):
    """A list of any kind, nested lists, a series, JSON and a DataFrame give the same images."""
    assert keys(value) == URLS


@pytest.mark.parametrize(
    "value",
    [URLS[0], Image(URLS[0], URLS[0]), {"image_uri": URLS[0]}],
    ids=["str", "Image", "dict"],
)
def test_one_image(value):
    """A single image needs no list around it."""
    assert keys(value) == [URLS[0]]
    assert len(ValueImages(value)) == 1


@pytest.mark.parametrize(
    "value",
    [
        [],
        (),
        "[]",
        [[], []],
        pd.Series([], dtype=object),
        pd.DataFrame({"image_key": [], "image_uri": []}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_images(value):
    """An empty list is fine and gives nothing."""
    assert entries(value) == []


def test_a_set_is_shown_the_same_in_every_process():
    """The order of a set of texts differs between processes; its description does not."""
    program = (
        "from airflow_imagetag.sources.values import ValueImages as V;"
        "v = V({str(n) for n in range(50)}); print(repr(v), v.serialize())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(shown) == 1


def test_the_columns_of_a_frame_may_have_other_names():
    """Key, URI, content and version are taken from a DataFrame, and all else is left."""
    frame = pd.DataFrame(
        {"id": [1, 2], "url": ["u1", None], "content": [None, b"2"], "version": ["a", None], "x": 0}
    )
    assert entries(frame, key="id", uri="url") == [
        Image("1", "u1", None, "a"),
        Image("2", None, b"2"),
    ]


@pytest.mark.parametrize("dtype", [object, "string"])
@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_missing_cells_of_a_frame(dtype, nothing):
    """A row without a URI or without a key is rejected, and the others are not touched."""
    frame = pd.DataFrame(
        {
            "image_key": pd.Series(["a", "b", nothing], dtype=dtype),
            "image_uri": pd.Series([nothing, "u", "v"], dtype=dtype),
        }
    )
    first, second, third = entries(frame)
    assert (type(first), first.key) == (RejectedImage, "a")
    assert second == Image("b", "u")
    assert (type(third), third.key) == (RejectedImage, "item 2")


def test_integers_keep_their_look_as_keys():
    """Numbers of numpy are keys like any other."""
    frame = pd.DataFrame({"image_key": np.array([1, 2], dtype="int32"), "image_uri": ["a", "b"]})
    assert keys(frame) == ["1", "2"]


@pytest.mark.parametrize(
    ("frame", "columns"),
    [
        (pd.DataFrame({"a": [1]}), {}),
        (pd.DataFrame(), {}),
        (pd.DataFrame({"image_key": ["a"]}), {}),
        (pd.DataFrame({"image_uri": ["a"]}), {}),
        (pd.DataFrame({"image_key": ["a"], "image_uri": ["b"]}), {"uri": "url"}),
    ],
)
def test_a_frame_without_the_columns(frame, columns):
    """The error names the columns that are wanted and those that are there."""
    with pytest.raises(ConfigurationError, match=r"key_column='image_key'.*has ") as caught:
        entries(frame, **columns)
    for column in frame.columns:
        assert repr(column) in caught.value.message


def test_a_wrong_entry_is_rejected_and_the_others_go_on():
    """Each entry of any list is an image, a rejection or a skip."""
    found = entries([URLS[0], 5, None, float("nan"), {"image_key": "k"}, b"", object(), URLS[1]])
    kinds = [type(entry).__name__ for entry in found]
    assert kinds == ["Image", *["RejectedImage"] * 4, "Image", "RejectedImage", "Image"]
    rejected = [entry for entry in found if isinstance(entry, RejectedImage)]
    assert [entry.key for entry in rejected] == ["item 1", "item 2", "item 3", "k", "item 6"]
    assert all(isinstance(entry.error, InvalidImageError) for entry in rejected)


class Hostile:
    """A value whose methods raise."""

    def __str__(self) -> str:
        raise RuntimeError

    def __ne__(self, other: object) -> bool:
        raise RuntimeError

    __fspath__ = __str__
    __hash__ = object.__hash__


class HostileList:
    """A list that cannot be read."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError


def hostile_iterator() -> Iterator[str]:
    """Raise after an image."""
    yield "/c.jpg"
    raise RuntimeError


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (Hostile(), 2),
        ({"image_key": Hostile(), "image_uri": "/x.jpg"}, 2),
        ({"image_key": "x", "image_uri": Hostile()}, 2),
        ({"image_key": "x", "image_uri": "/x.jpg", "version": Hostile()}, 2),
        ({"image_key": 10**5000, "image_uri": "/x.jpg"}, 2),
        (Image(5, "/x.jpg"), 2),  # type: ignore[arg-type]
        (Image("x", "/x.jpg", version=5), 2),  # type: ignore[arg-type]
        (HostileList(), 2),
        (hostile_iterator(), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_raises_is_rejected_and_the_others_go_on(value: Any, good: int):
    """One faulty value of a list ends no run."""
    entries = list(ValueImages(["/a.jpg", value, "/b.jpg"]).entries())
    assert sum(isinstance(entry, Image) for entry in entries) == good
    [rejected] = [entry for entry in entries if isinstance(entry, RejectedImage)]
    assert isinstance(rejected.error, InvalidImageError)


def test_an_equal_entry_is_skipped_and_another_one_is_rejected():
    """The first of two equal entries is taken; a key for another image is that entry's error."""
    found = entries(
        [
            {"image_key": "a", "image_uri": "u"},
            {"image_key": "a", "image_uri": "u"},
            {"image_key": "a", "image_uri": PRESIGNED},
            {"image_key": "b", "image_uri": "u"},
            {"image_key": "b", "image_uri": "u", "version": "2"},
        ]
    )
    assert [type(entry).__name__ for entry in found] == [
        "Image",
        "SkippedImage",
        "RejectedImage",
        "Image",
        "RejectedImage",
    ]
    assert found[1] == SkippedImage("a")
    assert (found[2].key, found[2].uri) == ("a", "https://h/1.jpg")
    assert isinstance(found[2].error, DuplicateKeyError)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, "an empty list is fine"),
        ("['https://h/a.jpg']", "render_template_as_native_obj"),
        ("[1, 2", "tojson"),
    ],
)
def test_a_value_that_is_no_list(value, hint):
    """The error says how the DAG's author can mend it."""
    with pytest.raises(ConfigurationError, match=hint):
        entries(value)


BIG = [f"https://h/{number}.jpg?X-Amz-Signature=5ecre7{number}" for number in range(100_000)]


@pytest.mark.parametrize(
    "value",
    [
        BIG,
        tuple(BIG),
        [BIG],
        pd.DataFrame({"image_key": BIG, "image_uri": BIG}),
        [{"image_uri": url} for url in BIG[:1000]],
        [b"x" * 1000] * 1000,
        json.dumps(BIG),
    ],
    ids=["list", "tuple", "nested", "frame", "dicts", "bytes", "JSON"],
)
def test_the_description_of_many_images_is_small(value):
    """Rendered fields and the serialized DAG do not grow with the images, nor show signatures."""
    images = ValueImages(value)
    for shown in (repr(images), json.dumps(images.serialize())):
        assert len(shown) < 2000
        assert "5ecre7" not in shown
    assert repr(images) == repr(ValueImages(value))


def test_the_description_of_a_long_list():
    """The count and the first ten."""
    shown = ValueImages(BIG).serialize()
    assert shown["count"] == 100_000
    assert shown["first"] == [f"https://h/{number}.jpg" for number in range(10)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (URLS, URLS),
        ([], []),
        (URLS[0], URLS[:1]),
        (PRESIGNED, ["https://h/1.jpg"]),
        ({"image_key": "k", "image_uri": PRESIGNED}, ["https://h/1.jpg"]),
        ([{"image_key": "k", "content": b"1"}], ["k"]),
        ([5, None], ["<int>", "<NoneType>"]),
        ([URLS], ["<list>"]),
    ],
)
def test_the_description_of_few_images(value, shown):
    """A short list is shown as it is, without credentials and bytes; repr is the same as JSON."""
    images = ValueImages(value)
    assert images.serialize() == shown
    assert json.loads(repr(images)) == shown


def test_only_text_with_a_template_is_rendered():
    """Of 100,000 literal texts none costs a rendering; the one with a template is rendered."""
    asked: list[str] = []

    def render(text: str) -> str:
        asked.append(text)
        return text.replace("{{ ds }}", "2026-01-01")

    rendered = ValueImages([*BIG, "s3://b/{{ ds }}.jpg"]).rendered(render, is_no_data)
    assert asked == ["s3://b/{{ ds }}.jpg"]
    assert rendered.value[:-1] == BIG
    assert rendered.value[-1] == "s3://b/2026-01-01.jpg"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ x }}", "X"),
        (["{% if 1 %}", "{# a #}", "a"], ["X", "X", "a"]),
        (("{{ x }}",), ["X"]),
        ([{"image_key": "{{ x }}", "image_uri": "u"}], [{"image_key": "X", "image_uri": "u"}]),
        ([["{{ x }}"]], [["X"]]),
        ([b"{{ x }}", 5], [b"{{ x }}", 5]),
    ],
)
def test_templates_anywhere_in_the_value(value, expected):
    """Templates are found in lists and dicts at any depth; bytes hold none."""
    assert ValueImages(value).rendered(lambda text: "X", is_no_data).value == expected


def test_an_object_passes_rendering_untouched():
    """An Image and a DataFrame are not looked into."""
    frame = pd.DataFrame({"image_key": ["{{ x }}"]})
    assert ValueImages(frame).rendered(lambda text: "X", is_no_data).value is frame


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        (
            ["/data/a.jpg", "https://h/a", "s3://b/a", "file:///data/b.jpg", "a.jpg", 5],
            {"/data/a.jpg", "file:///data/b.jpg", "a.jpg"},
        ),
        ([{"image_uri": "/data/a.jpg"}, Image("k", "/data/b.jpg")], {"/data/a.jpg", "/data/b.jpg"}),
        ([["/data/a.jpg"]], {"/data/a.jpg"}),
        ("/data/a.jpg", {"/data/a.jpg"}),
        (["/data/a.jpg", "{{ x }}"], {"/data/a.jpg", "{{ x }}"}),
    ],
)
def test_literal_paths(value, paths):
    """Local paths that stand in the DAG file are the author's own word, also after rendering."""
    images = ValueImages(value, literal=True)
    assert images.trust().paths == paths
    assert images.rendered(lambda text: "/etc/passwd", is_no_data).trust().paths == paths


def test_literal_paths_under_other_names():
    """The columns that name the images' URIs name the author's paths as well."""
    value = [{"id": 1, "path": "/data/a.jpg", "image_uri": "/data/b.jpg"}]
    images = ValueImages(value, literal=True).with_columns("id", "path")
    assert images.trust().paths == {"/data/a.jpg"}
    assert [entry.key for entry in images.rendered(str, is_no_data).entries()] == ["1"]


@pytest.mark.parametrize("text", ['["/etc/passwd"]', "/etc/passwd"])
def test_a_rendered_path_is_never_literal(text):
    """A template that becomes a path, or a list of them, gives no right to read them."""
    images = ValueImages(["{{ x }}"], literal=True).rendered(lambda _: text, is_no_data)
    assert "/etc/passwd" not in images.trust().paths


@pytest.mark.parametrize(
    "images",
    [
        ValueImages(["/data/a.jpg"]),
        ValueImages(["/data/a.jpg"], literal=True).rendered(str, lambda value: True),
        ValueImages(["/data/a.jpg"]).rendered(str, is_no_data),
    ],
)
def test_data_is_never_literal(images):
    """A path that an upstream task returned is not the author's word."""
    assert images.trust().paths == frozenset()


def test_showing_a_generator_uses_nothing_up():
    """A generator's images are all there after they were shown."""
    images = ValueImages(url for url in URLS)
    assert images.serialize() == URLS
    assert len(images) == 3
    assert [entry.key for entry in images.entries()] == URLS


@pytest.mark.parametrize("is_data", [True, False])
def test_entries_may_be_read_again(is_data):
    """A retried task sees the same images: reading uses nothing up."""
    images = ValueImages(URLS)
    first = list(images.entries())
    images.serialize()
    list(images.rendered(str, lambda value: is_data).entries())
    assert list(images.entries()) == first


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["https://h/a.jpg", Image("a", content=b"x")], True),
        (("/data/a.jpg",), True),
        ([], True),
        (iter(["https://h/a.jpg"]), True),
        ("https://h/a.jpg", False),
        ([b"bytes, whose key is their digest"], False),
        ([{"image_uri": "https://h/a.jpg"}], False),
        ([["https://h/a.jpg"]], False),
        (deque(["https://h/a.jpg"]), False),
    ],
)
def test_only_images_that_cost_nothing_to_read_are_read_in_the_loop(value, expected):
    """Images that need hashing, or that fetch their items, are read in a thread."""
    assert ValueImages(value).is_in_memory is expected


def test_generators_inside_a_list_give_their_images():
    """An iterator can be read only once, and the images any number of times."""
    images = ValueImages(
        [(f"https://h/{n}.jpg" for n in range(3)), iter(["https://h/x.jpg"])], literal=True
    )
    assert images.trust().paths == frozenset()
    assert len(images) == 4
    assert [entry.key for entry in images.entries()] == [
        *(f"https://h/{n}.jpg" for n in range(3)),
        "https://h/x.jpg",
    ]


def test_the_length_counts_the_images_of_lists_in_lists():
    """The log gives the number of images of a run."""
    assert len(ValueImages([["a", "b"], "c", ("d",)])) == 4


# -- names of images --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/d/a#1.png", "/d/a#2.png"),
        ("/d/a?token=1", "/d/a?token=2"),
        ("s3://b/a?&1", "s3://b/a?&2"),
        ("a.png", "a.png "),
        ("a.png", " a.png"),
        ("\u00e9", "e\u0301"),
        ("a\t1", "a\x0b1"),
        ("https://h/a#1", "https://h/a#2"),
        ("https://h/a\t1", "https://h/a\x0b1"),
        ("https://h/a?x-oss-process=1", "https://h/a?x-oss-process=2"),
        ("https://h/a?token=x&st=1", "https://h/a?token=x&st=2"),
        ("nan", "NaN"),
    ],
)
def test_two_images_have_two_names(one: str, other: str):
    """As texts, dicts, objects and rows of a DataFrame."""
    frame = pd.DataFrame({"image_key": [one, other], "image_uri": [one, other]})
    for value in ([one, other], [{"image_uri": one}, {"image_uri": other}], frame):
        found = entries(value)
        assert all(isinstance(entry, Image) for entry in found)
        assert len({entry.key for entry in found}) == 2
        assert [entry.uri for entry in found] == [one, other]
        assert len({entry.display_uri for entry in found}) == 2


@pytest.mark.parametrize(
    ("monday", "tuesday", "key"),
    [
        (f"{PRESIGNED}&id=1", "https://h/1.jpg?id=1&X-Amz-Signature=2&X-Amz-Date=3", "1.jpg?id=1"),
        (
            "https://h/1.jpg?e=1760000000&token=ak:1",
            "https://h/1.jpg?e=1760086400&token=ak:2",
            "1.jpg",
        ),
        ("https://u:monday@h/1.jpg", "https://u:tuesday@h/1.jpg", "1.jpg"),
    ],
)
def test_a_new_signature_makes_no_new_image(monday: str, tuesday: str, key: str):
    """The key is the URL without its secrets; two such URLs in one list are reported."""
    assert keys([monday]) == keys([tuesday])
    assert keys([monday])[0].endswith(f"h/{key}")
    first, second = entries([monday, tuesday])
    assert isinstance(first, Image)
    assert isinstance(second, RejectedImage)
    assert isinstance(second.error, DuplicateKeyError)


LONG_DATA = "data:image/png;base64," + "A" * 2_000_000


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (LONG_DATA, f"{LONG_DATA[:60]}... (2,000,022 characters, sha256 "),
        ("/d/" + "a/" * 500_000, "/d/a/a/a"),
        ({"image_uri": LONG_DATA}, LONG_DATA[:60]),
        ({"image_key": "k", "image_uri": LONG_DATA}, "k"),
        ({"image_key": "k" * 5000, "image_uri": "u"}, "k" * 60 + "... (5,000 characters, sha256 "),
        ({"image_key": "k", "image_uri": "u", "version": "v" * 5000}, "k"),
        (Image("k" * 5000, "u"), "k" * 60 + "... (5,000 characters"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("DATA:,AAAA", "DATA:,AAAA"),
        ("/d/a\0b", "/d/a\0b"),
    ],
    ids=lambda item: ascii(item)[:30],
)
def test_a_name_that_no_store_can_hold_is_refused(item: Any, name: str):
    """It is this image's failure, shown short, at once; others are not touched."""
    started = time.process_time()
    refused, other = entries([item, "a.png"])
    shown = repr(ValueImages([item]))
    assert time.process_time() - started < 1
    assert isinstance(refused, RejectedImage)
    assert isinstance(refused.error, InvalidImageError)
    assert refused.key.startswith(name)
    assert max(len(refused.key), len(refused.error.message), len(shown)) < 250
    assert other == Image("a.png", "a.png")


def test_names_of_the_greatest_length():
    """4,096 characters are taken, whatever they are."""
    item = {"image_key": "\U0001f600" * 4096, "image_uri": "u" * 4096, "version": "v" * 4096}
    [image] = entries([item])
    assert isinstance(image, Image)
    assert (image.key, image.uri, image.version) == tuple(item.values())


@pytest.mark.parametrize("column", ["image_key", "image_uri", "content", "version"])
def test_two_columns_of_one_name(column: str):
    """It is unknown which is meant; a column that is not read may be there twice."""
    columns = ["image_key", "image_uri", "content", "version", "x", "x"]
    frame = pd.DataFrame([["k", "u", b"1", "v", 1, 2]], columns=columns)
    assert entries(frame) == [Image("k", "u", b"1", "v")]
    twice = pd.DataFrame([["k", "u", b"1", "v", "other"]], columns=[*columns[:4], column])
    with pytest.raises(ConfigurationError, match=f"more than one column {column!r}"):
        entries(twice)


def test_entries_of_a_folder_are_paths(tmp_path: Path):
    """As os.scandir gives them."""
    (tmp_path / "a#1.png").write_bytes(b"x")
    with os.scandir(tmp_path) as found:
        assert keys(list(found)) == [f"{tmp_path}/a#1.png"]
