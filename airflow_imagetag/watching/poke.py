"""The poke of a sensor: one query, and the list of images that the task returns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from airflow_imagetag.errors import StorageError
from airflow_imagetag.models import Image
from airflow_imagetag.watching.decisions import PollDecision, decide
from airflow_imagetag.watching.image_lists import as_list
from airflow_imagetag.watching.logs import Log
from airflow_imagetag.watching.query import NewImagesQuery

ImageList = list[dict[str, str | None]]
"""Images as the operator takes them."""


def poke(query: NewImagesQuery, now: datetime, log: Log) -> ImageList | None:
    """Return the new images if there are enough of them; None to wait on.

    :param query: the query, which blocks.
    :param now: the time, with a zone.
    :param log: the task's logger.
    :raises ConfigurationError: a parameter or connection is wrong; waiting does not help.
    """
    min_images, max_images = query.condition.min_images, query.condition.max_images
    try:
        result = query.run(now, enough=max(min_images, max_images + 1))
    except StorageError as error:
        log.warning("Cannot query for new images now, trying again later: %s", error)
        return None
    found = len(result.images)
    if decide(found, min_images=min_images, now=now, deadline=None) is not PollDecision.READY:
        log.info("%d of at least %d new images", found, min_images)
        return None
    _log_found(found, max_images, log)
    return _listed(result.images[:max_images], log)


def _log_found(found: int, max_images: int, log: Log) -> None:
    if found <= max_images:
        log.info("New images: %d", found)
        return
    log.info(
        "More than %d images are new; the first %d are returned, the others are left for the next "
        "run",
        max_images,
        max_images,
    )


def _listed(images: Sequence[Image], log: Log) -> ImageList:
    listed = as_list(images)
    if len(listed) < len(images):
        log.warning(
            "%d images are left out of the list: reading them takes a signature, a password or "
            "bytes, which an XCom must not hold. Give the operator the source itself: images=..., "
            "store=...",
            len(images) - len(listed),
        )
    return listed
