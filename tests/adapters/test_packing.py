"""Sources and stores as the plain values that Airflow keeps for a trigger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from airflow_imagetag.adapters.descriptions import Description, Packed, unpack
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.base import LabelStore


@dataclass(repr=False)
class Shelf(ImageSource):
    """A source of the user's own."""

    room: str
    first: int = 0
    label: str | None = field(default="shelf", kw_only=True)

    template_fields: ClassVar[tuple[str, ...]] = ("room",)

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield one image."""
        yield Image(f"{self.room} {self.first}", "https://x")


class Pile(ImageSource):
    """A source of the user's own that is not a dataclass."""

    template_fields: ClassVar[tuple[str, ...]] = ()

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield nothing."""
        return iter(())


SOURCES: list[Any] = [
    SqlImages("warehouse", table="products"),
    SqlImages("warehouse", table='"shop"."odd ""name"""', key="sku", uri="photo", version="at"),
    SqlImages("warehouse", sql="SELECT id, image_url FROM x WHERE a > '5%' -- {{ ds }}"),
    SqlImages("warehouse", table="photos", content="jpeg"),
    ObjectStorageImages("s3://aws_default@photos/2026/"),
    ObjectStorageImages("{{ path }}", "aws", pattern="*.{{ suffix }}", send="url"),
    Shelf("attic"),
    Shelf("attic", 7, label=None),
]
STORES: list[Any] = [
    SqlLabelStore("warehouse"),
    SqlLabelStore("warehouse", "product_labels", schema="shop"),
    ParquetLabelStore("s3://aws_default@lake/labels/"),
    ParquetLabelStore("{{ path }}", "aws"),
]


def through_json(item: Description) -> Packed:
    """Return an item as Airflow's database keeps it."""
    packed: Packed = json.loads(json.dumps(item.pack()))
    assert packed == item.pack()
    return packed


def unpack_source(packed: Packed) -> ImageSource:
    """Return the source that was packed."""
    source: ImageSource = unpack(packed, ImageSource)
    return source


def unpack_store(packed: Packed) -> LabelStore:
    """Return the store that was packed."""
    store: LabelStore = unpack(packed, LabelStore)
    return store


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_a_source_comes_back(source: ImageSource):
    """Each field keeps its value, and packing the source again gives the same values."""
    back = unpack_source(through_json(source))
    assert back == source
    assert type(back) is type(source)
    assert back.pack() == source.pack()


@pytest.mark.parametrize("store", STORES, ids=repr)
def test_a_store_comes_back(store: LabelStore):
    """Each field keeps its value."""
    back = unpack_store(through_json(store))
    assert back == store
    assert back.pack() == store.pack()


def test_a_list_comes_back():
    """Each image comes back once, with the signature that reading it needs."""
    signed = "https://shop/a.jpg?X-Amz-Signature=abc"
    values = ValueImages(
        [
            signed,
            {"image_key": "k", "image_uri": "s3://photos/b.jpg", "version": "v1"},
            Image("c", "https://shop/c.jpg", version=None),
            signed,
            {"image_key": "no URI"},
        ]
    )
    back = unpack_source(through_json(values))
    assert list(back.entries()) == [entry for entry in values.entries() if isinstance(entry, Image)]
    assert signed in [image.uri for image in back.images()]
    assert back.pack() == values.pack()


def test_an_empty_list_comes_back():
    """An empty list is not an error."""
    assert list(unpack_source(through_json(ValueImages([]))).entries()) == []


@pytest.mark.parametrize(
    "source", [ValueImages([b"a picture"]), ValueImages([Image("a", content=b"x")]), Pile()]
)
def test_bytes_and_unknown_fields_are_refused(source: ImageSource):
    """A trigger can keep neither bytes nor a class whose fields are not known."""
    with pytest.raises(ConfigurationError, match="cannot be handed to a trigger"):
        source.pack()


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"type": ""},
        {"type": "SqlImages"},
        {"type": "there.is.none"},
        {"type": "airflow_imagetag.sources.sql.NoSuchClass"},
        {"type": "builtins.dict"},
        {"type": "airflow_imagetag.sources.sql.field"},
        {"type": ".SqlImages"},
        {"type": None},
        {"type": "airflow_imagetag.stores.sql.SqlLabelStore", "conn_id": "warehouse"},
        {"type": "airflow_imagetag.sources.sql.SqlImages", "conn_id": "x", "colour": "red"},
        {"type": "airflow_imagetag.sources.sql.SqlImages"},
        {"type": "airflow_imagetag.sources.sql.SqlImages", "conn_id": "x"},
        {"type": "airflow_imagetag.sources.base.ImageSource"},
    ],
)
def test_values_that_describe_no_source_are_refused(packed: dict[str, Any]):
    """Another version or another program may have written them."""
    with pytest.raises(ConfigurationError):
        unpack_source(packed)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("airflow_imagetag.stores.sql.SqlLabelStore", "got one of class airflow_imagetag.stores"),
        ("builtins.dict", "got one of class builtins.dict."),
        ("airflow_imagetag.sources.sql.field", "field', which is not a class"),
        ("there.is.none", "'there.is.none', which cannot be imported: No module named 'there'"),
        ("..none", "'..none', which cannot be imported"),
        ("builtins.NoSuchClass", "cannot be imported: module 'builtins' has no attribute"),
    ],
)
def test_the_message_about_a_wrong_class(path: str, words: str):
    """It names the class that is expected, and tells what the given one is."""
    with pytest.raises(ConfigurationError) as caught:
        unpack_source({"type": path})
    assert "Expected an object of class ImageSource" in caught.value.message
    assert words in caught.value.message


def test_a_source_is_not_a_store():
    """Neither takes the other's place."""
    with pytest.raises(ConfigurationError, match=r"LabelStore, got one of class .*SqlImages"):
        unpack_store(SOURCES[0].pack())
    with pytest.raises(ConfigurationError, match=r"ImageSource, got one of class .*SqlLabel"):
        unpack_source(STORES[0].pack())


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (SOURCES[0], "warehouse"),
        (STORES[1], "warehouse"),
        (SOURCES[4], "s3://aws_default@photos"),
        (ObjectStorageImages("s3://photos/2026/", "aws"), "s3://aws@photos"),
        (STORES[2], "s3://aws_default@lake"),
        (ParquetLabelStore("/data/labels"), "file://"),
        (Shelf("attic"), f"{__name__}.Shelf"),
        (Shelf("cellar"), f"{__name__}.Shelf"),
    ],
)
def test_the_server_of_a_description(item: Description, name: str):
    """The connection of a database, the bucket of a storage, else the class."""
    assert item.server_name == name


def test_a_set_is_packed_in_one_order():
    """The order of a set differs between processes, and each would make a new DAG version."""
    uris = {f"https://shop/{number}.jpg" for number in range(20)}
    assert ValueImages(uris).pack() == ValueImages(sorted(uris)).pack()
