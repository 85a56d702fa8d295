"""Deciding which request meets which fault, and spoiling good answers."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from typing import TYPE_CHECKING, Any, Final

from airflow_imagetag.testing._recorder import SlidingWindow
from airflow_imagetag.testing._tiia import SCENES
from airflow_imagetag.testing.faults import GARBAGE_KINDS, Faults, Garbage

if TYPE_CHECKING:
    from collections.abc import Mapping


class FaultInjector:
    """Draws the faults of one :class:`Faults`, repeatably. Used from one thread only.

    :param faults: what may go wrong.
    :param seed: the same seed and the same order of requests give the same faults.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._errors = _together(faults.error_rates, faults.error_codes)
        self._first_attempts = _together(faults.first_attempts, faults.first_attempt_codes)
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._garbage = itertools.cycle(GARBAGE_KINDS)
        self._attempted: set[bytes] = set()
        self._limit, self._window = _quota(faults.requests_per_second)

    def over_quota(self, now: float) -> bool:
        """Return whether a request at ``now`` is over the quota; if not, it counts against it.

        A refused request does not count, so a client that keeps on trying still gets its quota.

        :param now: seconds of a clock that does not run backwards.
        """
        if self._limit is None:
            return False
        if self._window.count(now) >= self._limit:
            return True
        self._window.add(now)
        return False

    def latency_seconds(self) -> float:
        """Return how long this request takes."""
        return self._random.uniform(*self.faults.latency_range_seconds)

    def drops(self) -> bool:
        """Return whether the connection closes before any work."""
        return self._happens(self.faults.drop_rate)

    def drops_after_work(self) -> bool:
        """Return whether the connection closes instead of answering with the labels."""
        return self._happens(self.faults.drop_after_work_rate)

    def error(self) -> int | str | None:
        """Return the HTTP status or the code of TIIA that this request fails with, or None."""
        if not self._errors:
            return None
        return _pick(self._errors, self._random.random())

    def first_attempt_error(self, image: bytes) -> int | str | None:
        """Return the HTTP status or the code of TIIA that this image fails with now, or None.

        :param image: the image's bytes, or its URL.
        """
        if not self._first_attempts:
            return None
        digest = hashlib.sha256(b"%d:" % self._seed + image).digest()
        if digest in self._attempted:
            return None
        self._attempted.add(digest)
        return _pick(self._first_attempts, int.from_bytes(digest[:8]) / 2**64)

    def garbage(self) -> Garbage | None:
        """Return the kind of useless answer that replaces the labels, or None."""
        if not self._happens(self.faults.garbage_rate):
            return None
        return self.faults.garbage or next(self._garbage)

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate


def _quota(requests_per_second: float | None) -> tuple[int | None, SlidingWindow]:
    if requests_per_second is None:
        return None, SlidingWindow(1.0)
    limit = max(1, int(requests_per_second))
    return limit, SlidingWindow(limit / requests_per_second)


def _together(statuses: Mapping[int, float], codes: Mapping[str, float]) -> dict[int | str, float]:
    shares: dict[int | str, float] = {}
    shares.update(statuses.items())
    shares.update(codes.items())
    return shares


def _pick(shares: Mapping[int | str, float], drawn: float) -> int | str | None:
    """Return the error in whose share the number ``drawn``, 0 to 1, falls."""
    for error, share in shares.items():
        if drawn < share:
            return error
        drawn -= share
    return None


_GATEWAY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body></body></html>"
_TIIA_FIELDS: Final = tuple(scene.field for scene in SCENES.values())
_IMPOSSIBLE: Final = {"probability": 17.5, "tag_confidence": 1750, "Confidence": 1750}


def spoil(kind: Garbage, answer: dict[str, Any]) -> tuple[bytes, str]:
    """Return the body and the content type to send in place of a good answer.

    :param kind: how to spoil it.
    :param answer: the JSON object of the good answer; it is changed.
    """
    if kind == "html":
        return _GATEWAY_PAGE, "text/html"
    if kind == "empty":
        return b"", "application/json"
    if kind == "not_json":
        return b"internal error, please retry", "application/json"
    if kind == "missing_data":
        _empty(answer)
    elif kind == "bad_probability":
        _make_impossible(answer)
    body = json.dumps(answer).encode()
    return (body[: len(body) // 2] if kind == "truncated" else body), "application/json"


def _empty(answer: dict[str, Any]) -> None:
    """Take out the labels and whatever says that there are none."""
    response = answer.get("Response", answer)
    for name in ("data", "tags", *_TIIA_FIELDS):
        response.pop(name, None)


def _make_impossible(answer: dict[str, Any]) -> None:
    """Set every probability to a number that no probability can be."""
    for item in _items(answer):
        for name in item.keys() & _IMPOSSIBLE.keys():
            item[name] = _IMPOSSIBLE[name]


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    if "Response" in answer:
        found = (answer["Response"].get(name) for name in _TIIA_FIELDS)
        return [item for items in found for item in items or ()]
    if "tags" in answer:
        return list(answer["tags"])
    data = answer["data"]
    return list((data[0] if isinstance(data, list) else data)["items"])
