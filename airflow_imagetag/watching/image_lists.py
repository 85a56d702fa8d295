"""New images as plain dicts, for an XCom or an event."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_imagetag.models import Image


def as_list(images: Iterable[Image]) -> list[dict[str, str | None]]:
    """Return the images as the list that the operator takes, without those that it cannot hold.

    Secrets and bytes must not go into an XCom or an event. An image that needs them is left out:
    without them it could not be read, and would be stored as failed.
    """
    return [image.as_dict() for image in images if not needs_more(image)]


def needs_more(image: Image) -> bool:
    """Tell whether plain values do not suffice to read the image: it has a secret, or is bytes."""
    if image.uri is None:
        return True
    return image.uri != image.display_uri
