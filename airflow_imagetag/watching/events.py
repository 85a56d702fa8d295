"""What a trigger tells: small events, made in one place and read in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.models import Image
from airflow_imagetag.watching.packing import as_list

MAX_EVENT_IMAGES = 500
"""Airflow keeps events in its database and writes them to a log line each: some 75 KB."""

READY, TIMED_OUT, FAILED = "success", "timeout", "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a trigger.

    :param status: ``success``, ``timeout`` or ``error``.
    :param count: new images; at least so many where the list is not complete.
    :param images: the first of them, as the operator takes them.
    :param is_complete: whether the list holds all of them, with all that is needed to read them.
    :param error: class name of what went wrong.
    :param message: what went wrong, for a person.
    """

    status: str
    count: int = 0
    images: tuple[dict[str, str | None], ...] = ()
    is_complete: bool = False
    error: str = ""
    message: str = ""

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
    """Return the event of something that waiting does not mend."""
    return Event(FAILED, error=type(error).__name__, message=str(error))


def parse_event(payload: Any) -> Event:
    """Return the event that a trigger sent.

    :raises ImageTagError: the payload is no such event.
    """
    try:
        event = Event(**{**payload, "images": tuple(payload["images"])})
    except (KeyError, TypeError):
        event = Event("")
    if event.status not in (READY, TIMED_OUT, FAILED):
        raise ImageTagError(
            f"The trigger sent what is no event of NewImagesTrigger: {str(payload)[:200]!r}. Are "
            "workers and triggerer of the same version?"
        )
    return event
