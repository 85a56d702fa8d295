"""The events of a trigger: made by the trigger, read by the sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow_imagetag.errors import ImageTagError, error_named
from airflow_imagetag.models import Image
from airflow_imagetag.watching.image_lists import as_list

MAX_EVENT_IMAGES = 500
"""Maximum number of images in an event: Airflow writes each event to its database and to a log
line, and 500 images make about 75 KB."""

READY, TIMED_OUT, FAILED = "success", "timeout", "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a trigger.

    :param status: ``success``, ``timeout`` or ``error``.
    :param count: number of new images; a lower bound if the list is not complete.
    :param images: the first of them, as the operator takes them.
    :param is_complete: whether the list holds all of them, and each can be read.
    :param error: class name of the error.
    :param message: message of the error.
    """

    status: str
    count: int = 0
    images: tuple[dict[str, str | None], ...] = ()
    is_complete: bool = False
    error: str = ""
    message: str = ""

    def exception(self) -> ImageTagError:
        """Return the error of a failed wait, as the task raises it."""
        return error_named(self.error)(self.message)

    def payload(self) -> dict[str, Any]:
        """Return the event as JSON values."""
        return asdict(self) | {"images": list(self.images)}


def found(images: Sequence[Image], *, is_all: bool) -> Event:
    """Return the event of new images.

    :param images: any number of them.
    :param is_all: whether there are no more.
    """
    shown = as_list(images[:MAX_EVENT_IMAGES])
    return Event(READY, len(images), tuple(shown), is_all and len(shown) == len(images))


def failed(error: BaseException) -> Event:
    """Return the event of an error that waiting does not cure."""
    return Event(FAILED, error=type(error).__name__, message=str(error))


def parse_event(payload: Any) -> Event:
    """Return the event that a trigger sent.

    :raises ImageTagError: the payload is not an event of this trigger.
    """
    try:
        event = Event(**{**payload, "images": tuple(payload["images"])})
    except (KeyError, TypeError):
        event = Event("")
    if event.status not in (READY, TIMED_OUT, FAILED):
        raise ImageTagError(
            "The trigger did not send an event of NewImagesTrigger, but "
            f"{str(payload)[:200]!r}. Install the same version on workers and triggerer."
        )
    return event
