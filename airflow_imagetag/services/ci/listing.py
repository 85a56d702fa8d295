"""List the objects of a bucket, page by page; sends nothing.

Source: the vendor's page on it, https://cloud.tencent.com/document/product/436/7734.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.ci.errors import error_of
from airflow_imagetag.services.ci.xml_tree import Element, parse
from airflow_imagetag.services.messages import HttpResponse

MAX_KEYS = 1000
"""Number of objects in a page, the vendor's maximum."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object of a listing.

    :param key: its name.
    :param size: its size in bytes.
    :param etag: changes when its bytes do.
    :param modified: when it was written; None where the answer does not tell.
    """

    key: str
    size: int
    etag: str
    modified: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing.

    :param objects: in the order of their names.
    :param next_marker: where the next page begins; None after the last one.
    """

    objects: list[ListedObject]
    next_marker: str | None


def page_params(prefix: str, marker: str) -> Mapping[str, str]:
    """Return the parameters of the request for a page.

    :param prefix: only objects whose name begins so.
    :param marker: only objects behind this name.
    """
    # Encoded names, since XML cannot hold every character of a name.
    return {
        "prefix": prefix,
        "marker": marker,
        "max-keys": str(MAX_KEYS),
        "encoding-type": "url",
    }


def read_page(response: HttpResponse, bucket: str) -> Page:
    """Return the page that an answer holds.

    :param bucket: name of the bucket, for messages.
    :raises ImageTagError: the class that the code or the status stands for.
    """
    root = parse(response.body)
    if error := error_of(response, root, bucket):
        raise error
    if root is None or root.name != "ListBucketResult":
        raise response_parsing.malformed(response, "it is no XML with a ListBucketResult")
    try:
        objects = [_object(item) for item in root.find_all("Contents")]
    except (TypeError, ValueError):
        raise response_parsing.malformed(response, "an object has no name or size") from None
    is_truncated = root.text_of("IsTruncated") == "true"
    if not is_truncated or not objects:
        return Page(objects, None)
    return Page(objects, unquote(root.text_of("NextMarker") or "") or objects[-1].key)


def _object(item: Element) -> ListedObject:
    key, size = item.text_of("Key"), item.text_of("Size")
    if not key:
        raise ValueError
    written = item.text_of("LastModified")
    return ListedObject(
        unquote(key),
        int(size or ""),
        (item.text_of("ETag") or "").strip('"'),
        datetime.fromisoformat(written) if written else None,
    )
