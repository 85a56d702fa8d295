"""New images as plain dicts, for an XCom or an event."""

from __future__ import annotations

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.watching.image_lists import as_list, needs_more


def test_a_list_leaves_out_images_that_need_a_secret_or_bytes():
    """The list goes to XComs, events and logs, which must hold neither."""
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
    """A part of it that resembles a query or a fragment tells two objects apart."""
    [listed] = as_list([Image("a", uri)])
    assert listed["image_uri"] == uri
