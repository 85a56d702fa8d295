"""The ends of a run: outcomes and their writer, answers that were paid for earlier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from airflow_imagetag.errors import ImageError
from airflow_imagetag.models import Failure, TagResult

Outcome = TagResult | Failure

CachedAnswer = TagResult | ImageError
"""The answer for some bytes: labels, or an error that the same bytes would meet again."""

AnswerLookup = Callable[[Collection[str]], Awaitable[Mapping[str, CachedAnswer]]]
"""Returns the answers that were paid for bytes with these SHA-256 digests."""


class OutcomeWriter(Protocol):
    """Takes finished images in batches."""

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Keep a batch, all of it or nothing. Batches come one at a time."""
        ...


def as_exception(origin: str, error: BaseException) -> Exception:
    """Return an exception of a source or a writer as one that ends the run.

    A ``CancelledError`` of theirs would pass for the engine's own, and a ``SystemExit`` would lose
    the answers that are paid for.

    :param origin: ``source`` or ``writer``.
    """
    return RuntimeError(f"The {origin} raised {type(error).__name__}: {error}")
