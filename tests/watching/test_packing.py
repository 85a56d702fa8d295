"""Sources and stores as plain values, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from airflow_imagetag.watching.packing import as_list, needs_more, pack, unpack_source, unpack_store

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
    """A source of the user's own that says nothing of itself."""

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


def through_json(item: ImageSource | LabelStore) -> dict[str, Any]:
    """Return what is left of an item in Airflow's database."""
    packed: dict[str, Any] = json.loads(json.dumps(pack(item)))
    assert packed == pack(item)
    return packed


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_a_source_comes_back(source: ImageSource):
    """Each field is as it was, and packing it again gives the same."""
    back = unpack_source(through_json(source))
    assert back == source
    assert type(back) is type(source)
    assert pack(back) == pack(source)


@pytest.mark.parametrize("store", STORES, ids=repr)
def test_a_store_comes_back(store: LabelStore):
    """Each field is as it was."""
    back = unpack_store(through_json(store))
    assert back == store
    assert pack(back) == pack(store)


def test_a_list_comes_back():
    """Its images do, with the signatures that are needed to read them, and once each."""
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
    assert pack(back) == pack(values)


def test_an_empty_list_comes_back():
    """It has nothing to wait for, and is no error."""
    assert list(unpack_source(through_json(ValueImages([]))).entries()) == []


@pytest.mark.parametrize(
    "source", [ValueImages([b"a picture"]), ValueImages([Image("a", content=b"x")]), Pile()]
)
def test_what_no_trigger_can_keep_is_refused(source: ImageSource):
    """Bytes, and a class that says nothing of its fields."""
    with pytest.raises(ConfigurationError, match="cannot be handed to a trigger"):
        pack(source)


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
def test_what_describes_no_source_is_refused(packed: dict[str, Any]):
    """It was kept by another version, or by somebody else."""
    with pytest.raises(ConfigurationError):
        unpack_source(packed)


def test_a_source_is_no_store():
    """Neither takes the other's place."""
    with pytest.raises(ConfigurationError, match="no LabelStore"):
        unpack_store(pack(SOURCES[0]))
    with pytest.raises(ConfigurationError, match="no ImageSource"):
        unpack_source(pack(STORES[0]))


def test_a_list_leaves_out_what_needs_more_than_it_holds():
    """It goes to XComs, events and logs, where no secret may be and no bytes."""
    images = [
        Image("a", "https://shop/a.jpg?id=1", version="v"),
        Image("b", "https://me:secret@shop/a.jpg"),
        Image("c", "https://shop/a.jpg?X-Amz-Signature=secret"),
        Image("d", content=b"secret"),
        Image("e", "ftp://me:secret@shop/a.jpg"),
    ]
    assert as_list(images) == [
        {"image_key": "a", "image_uri": "https://shop/a.jpg?id=1", "version": "v"}
    ]
    assert [needs_more(image) for image in images] == [False, True, True, True, True]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://aws_default@photos/a.jpg#2.jpg",
        "s3://photos/a.jpg?token=b",
        "gs://photos/a\tb.jpg",
        "/data/a.jpg?sig=1#2",
        "file:///data/a:b@c.jpg",
    ],
)
def test_the_name_of_an_object_is_kept_whole(uri: str):
    """What looks like a query or a fragment tells two objects apart."""
    [listed] = as_list([Image("a", uri)])
    assert listed["image_uri"] == uri


def test_a_set_is_packed_in_one_order():
    """That of a set differs between processes, and each would make a new DAG version."""
    uris = {f"https://shop/{number}.jpg" for number in range(20)}
    assert pack(ValueImages(uris)) == pack(ValueImages(sorted(uris)))
