"""Choose the faults of each request, and spoil good answers."""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import TYPE_CHECKING, Any, Final

from airflow_imagetag.testing._recorder import SlidingWindow
from airflow_imagetag.testing._tiia import SCENES
from airflow_imagetag.testing.faults import GARBAGE_KINDS, Faults, Garbage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_imagetag.testing._api import Api


class FaultInjector:
    """Draw the faults of one :class:`Faults` repeatably; for one thread only.

    :param faults: the faults and their rates.
    :param seed: the same seed and the same order of requests give the same faults.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._errors = _together(faults.error_rates, faults.error_codes)
        self._first_attempts = _together(faults.first_attempts, faults.first_attempt_codes)
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 (must be repeatable)
        self._garbage = itertools.cycle(GARBAGE_KINDS)
        self._attempted: set[bytes] = set()
        self._limit, self._window = _quota(faults.requests_per_second)

    def over_quota(self, now: float) -> bool:
        """Return whether a request at ``now`` is over the quota, and count it if it is not.

        A refused request does not count, so a client that retries all the time gets its quota.

        :param now: seconds of a monotonic clock.
        """
        if self._limit is None:
            return False
        if self._window.count(now) >= self._limit:
            return True
        self._window.add(now)
        return False

    def latency_seconds(self) -> float:
        """Draw the latency of this request."""
        return self._random.uniform(*self.faults.latency_range_seconds)

    def drops(self) -> bool:
        """Draw whether the connection closes before any work."""
        return self._happens(self.faults.drop_rate)

    def drops_after_work(self) -> bool:
        """Draw whether the connection closes in place of the answer with labels."""
        return self._happens(self.faults.drop_after_work_rate)

    def error(self) -> int | str | None:
        """Draw the HTTP status or TIIA code of this request's failure, or None."""
        if not self._errors:
            return None
        return _pick(self._errors, self._random.random())

    def first_attempt_error(self, image: bytes) -> int | str | None:
        """Return the HTTP status or TIIA code of this image's failure, or None.

        None from the second attempt on.

        :param image: bytes of the image, or its URL.
        """
        if not self._first_attempts:
            return None
        digest = hashlib.sha256(b"%d:" % self._seed + image).digest()
        if digest in self._attempted:
            return None
        self._attempted.add(digest)
        return _pick(self._first_attempts, int.from_bytes(digest[:8]) / 2**64)

    def garbage(self) -> Garbage | None:
        """Draw the kind of garbage that replaces the labels, or None."""
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
    """Return the error whose share contains ``drawn``, a number from 0 to 1."""
    for error, share in shares.items():
        if drawn < share:
            return error
        drawn -= share
    return None


_GATEWAY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body></body></html>"
_TIIA_FIELDS: Final = tuple(scene.field for scene in SCENES.values())
_IMPOSSIBLE: Final = {"probability": 17.5, "tag_confidence": 1750, "Confidence": 1750}


def spoil(kind: Garbage, answer: dict[str, Any], api: Api) -> tuple[bytes, str]:
    """Return the body and the content type to send in place of a good answer.

    :param kind: kind of garbage to make.
    :param answer: the good answer; it is modified.
    :param api: encodes it.
    """
    if kind == "html":
        return _GATEWAY_PAGE, "text/html"
    if kind == "empty":
        return b"", api.content_type
    if kind == "not_json":
        return b"internal error, please retry", api.content_type
    if kind == "missing_data":
        _empty(answer)
    elif kind == "bad_probability":
        _make_impossible(answer)
    body = api.encode(answer)
    return (body[: len(body) // 2] if kind == "truncated" else body), api.content_type


def _empty(answer: dict[str, Any]) -> None:
    """Remove every field that can hold labels."""
    if "RecognitionResult" in answer:
        # Without elements it would be the answer for an image without labels.
        answer["Response"] = answer.pop("RecognitionResult") and ""
        return
    response = answer.get("Response", answer)
    for name in ("data", "tags", *_TIIA_FIELDS):
        response.pop(name, None)


def _make_impossible(answer: dict[str, Any]) -> None:
    """Set every probability out of range."""
    for item in _items(answer):
        for name in item.keys() & _IMPOSSIBLE.keys():
            item[name] = _IMPOSSIBLE[name]


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    if "RecognitionResult" in answer:
        result = answer["RecognitionResult"]
        lists = [result["Labels"]] if "Labels" in result else [s["Labels"] for s in result.values()]
        return [item for items in lists for item in items]
    if "Response" in answer:
        found = (answer["Response"].get(name) for name in _TIIA_FIELDS)
        return [item for items in found for item in items or ()]
    if "tags" in answer:
        return list(answer["tags"])
    data = answer["data"]
    return list((data[0] if isinstance(data, list) else data)["items"])
