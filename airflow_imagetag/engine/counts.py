"""The counts of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """The counts of a run so far.

    :param seen: entries that the source gave.
    :param tagged: images that got an answer, also if the service saw nothing in them.
    :param reused: tagged images that took the answer of another image with equal bytes.
    :param failed: images that ended in the failures.
    :param tolerated: failed images that do not count against ``max_failure_ratio``: rows without a
        URI or with a key that repeats.
    :param skipped: entries that need no work, and entries that a stopped run left.
    :param calls: calls that the vendor may bill: requests sent, one for each scene.
    :param billed_calls: those of them that were answered with labels.
    :param refused_calls: those of them that the service answered with an error: it bills none.
    :param unknown_calls: those of them whose answer never came: they may be billed.
    :param retries: requests sent for an image after its first.
    :param throttled: responses that asked for fewer requests.
    :param out_of_budget: the run ended before its last image, since it may make no more calls.
    """

    seen: int = 0
    tagged: int = 0
    reused: int = 0
    failed: int = 0
    tolerated: int = 0
    skipped: int = 0
    calls: int = 0
    billed_calls: int = 0
    refused_calls: int = 0
    unknown_calls: int = 0
    retries: int = 0
    throttled: int = 0
    out_of_budget: bool = False

    @property
    def done(self) -> int:
        """Images that ended tagged or failed."""
        return self.tagged + self.failed
