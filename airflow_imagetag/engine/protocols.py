"""What a run makes of each image, and where it puts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_imagetag.models import Entry, Failure, Image, TagResult
from airflow_imagetag.services.messages import Payload

Outcome = TagResult | Failure

PreparedEntry = tuple[Entry, Payload | None]
"""An entry, and what to send of it where that is known already."""


class Labeller(Protocol):
    """Labels one image, in the steps that the engine schedules by themselves."""

    def is_quick(self, image: Image) -> bool:
        """Tell whether ``load`` takes next to no time, so that it needs no thread."""
        ...

    def load(self, image: Image) -> Payload:
        """Return what to send of the image; may block, and runs in a thread unless it is quick."""
        ...

    async def fit(self, image: Image, payload: Payload) -> Payload:
        """Return the payload as the service takes it; asked once, however often it is sent."""
        ...

    async def call(self, image: Image, payload: Payload) -> TagResult:
        """Send one request and return the labels; does not retry.

        The result has the image's version and the payload's SHA-256.
        """
        ...


def as_exception(who: str, error: BaseException) -> Exception:
    """Return what a source or a sink raised that is no ``Exception``, as one that ends the run.

    A ``CancelledError`` of theirs would pass for the engine's own, and a ``SystemExit`` would take
    what is paid along.
    """
    return RuntimeError(f"The {who} raised {type(error).__name__}: {error}")


class Source(Protocol):
    """The entries of a run, for any number of takers."""

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more is to be taken."""
        ...

    async def take(self) -> PreparedEntry | None:
        """Return the next entry; None after the last."""
        ...

    def drop(self) -> int:
        """Forget what was read and not taken, and return how many entries it was."""
        ...

    async def read(self) -> None:
        """Read until the source ends or the run is to end.

        :raises Exception: what the source raised.
        """
        ...


class Sink(Protocol):
    """Takes finished images in batches."""

    @property
    def is_quick(self) -> bool:
        """Whether ``write`` takes next to no time, so that it needs no thread."""
        ...

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep a batch, all of it or nothing; may block, and runs in a thread unless it is quick.

        Batches come one at a time.
        """
        ...


@dataclass(slots=True)
class Counts:
    """What a run did so far.

    :param seen: entries that the source gave.
    :param tagged: images that got an answer, also when the service saw nothing in them.
    :param reused: those among the tagged that took the answer of another one with equal bytes.
    :param failed: images that ended in the failures.
    :param tolerated: those among the failed that do not count against ``max_failure_ratio``: rows
        without a URI or with a key that repeats, empty objects.
    :param skipped: entries that need no work, and those that a stopped run left.
    :param calls: calls that the vendor may bill: requests sent, for each scene one.
    :param retries: requests sent for an image after its first.
    :param throttled: answers that asked for fewer requests.
    """

    seen: int = 0
    tagged: int = 0
    reused: int = 0
    failed: int = 0
    tolerated: int = 0
    skipped: int = 0
    calls: int = 0
    retries: int = 0
    throttled: int = 0

    @property
    def done(self) -> int:
        """Images that ended tagged or failed."""
        return self.tagged + self.failed
