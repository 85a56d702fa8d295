"""Equal bytes are paid once: remembers what the service said of them during a run."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from operator import attrgetter

from airflow_imagetag.errors import ImageError
from airflow_imagetag.models import Label, TagResult

MAX_REMEMBERED = 10_000
"""Digests kept, the latest used: some five megabytes, whatever the number of images."""

MIN_REMEMBERED = 2_000
"""So many where a store knows the others: most copies lie near each other, and need no look-up."""

Known = TagResult | ImageError

_values = attrgetter(*(field.name for field in fields(Label)))


class Reuse:
    """Answers by digest of the image's bytes, and one call at a time for each digest.

    :param max_remembered: digests kept.
    """

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._known: OrderedDict[str, _Packed | ImageError] = OrderedDict()
        # Of the digests that are held: what those wait for who came later, if there are any.
        self._held: dict[str, asyncio.Future[None] | None] = {}

    async def alone(self, digest: str) -> _Turn:
        """Wait for a turn, a context manager that holds the digest and gives what is known of it.

        So equal images wait for the first.
        """
        while digest in self._held:
            waiting = self._held[digest]
            if waiting is None:
                waiting = self._held[digest] = asyncio.get_running_loop().create_future()
            # Shielded: one who is cancelled must not take the others along.
            await asyncio.shield(waiting)
        self._held[digest] = None
        return _Turn(self, digest)

    def remember(self, digest: str, known: Known) -> None:
        """Keep an answer that will not change: labels, or that the image is at fault.

        Of labels, what names their image is left out: they are for others.
        """
        self._known[digest] = _Packed.of(known) if isinstance(known, TagResult) else known
        if len(self._known) > self._max_remembered:
            self._known.popitem(last=False)

    def _recall(self, digest: str) -> Known | None:
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known.unpacked() if isinstance(known, _Packed) else known

    def _leave(self, digest: str) -> None:
        waiting = self._held.pop(digest)
        if waiting is not None:
            waiting.set_result(None)


@dataclass(frozen=True, slots=True)
class _Packed:
    """An answer in half the memory: few are asked for again, and labels are many small objects.

    :param rest: the answer without its labels, and without what names the image.
    :param labels: the labels as JSON.
    """

    rest: TagResult
    labels: str

    @classmethod
    def of(cls, result: TagResult) -> _Packed:
        rest = replace(result, image_key="", image_uri=None, version=None, labels=())
        # A service of somebody else's may give a number that JSON does not know, such as a Decimal.
        return cls(rest, json.dumps([_values(label) for label in result.labels], default=float))

    def unpacked(self) -> TagResult:
        labels = tuple(Label(*values) for values in json.loads(self.labels))
        return replace(self.rest, labels=labels)


class _Turn:
    """The time that one image has a digest for itself.

    A class, as the one that ``contextmanager`` makes costs several times as much.
    """

    __slots__ = ("_digest", "_reuse")

    def __init__(self, reuse: Reuse, digest: str) -> None:
        self._reuse = reuse
        self._digest = digest

    def __enter__(self) -> Known | None:
        return self._reuse._recall(self._digest)

    def __exit__(self, *exc_info: object) -> None:
        self._reuse._leave(self._digest)
