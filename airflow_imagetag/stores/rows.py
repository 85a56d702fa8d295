"""Private: convert outcomes to rows of images and of labels, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.selection.rules import UNFINISHED, Status, StoredState

MISSING_SINCE = "missing_since"
"""Column of the time at which an image was found to have left its source."""

LIFE_COLUMNS = ("tries", "first_failed_at", "next_try_at", MISSING_SINCE)
"""Columns of images that failed by a fault that may pass, or have left their source; tables of
version 0.1.0 have none."""

ANSWERED = (Status.TAGGED.value, Status.FAILED.value)
"""Statuses of images with an answer."""


def key_digest(key: str) -> str:
    """Return the digest of an image's key, which the primary keys hold."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def rows_of(
    outcomes: Sequence[TagResult | Failure], api: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of images and of labels of a batch, in the order of ``key_sha256``.

    The last outcome of a key counts; a failure that is not of the image itself makes no row. The
    columns are those of the images table and of the labels table of ``SqlLabelStore``.

    :param outcomes: outcomes of images.
    :param api: the interface that labelled the images.
    """
    latest: dict[str, TagResult | Failure] = {}
    for outcome in outcomes:
        if isinstance(outcome, TagResult) or outcome.is_of_image:
            latest[key_digest(outcome.image_key)] = outcome
    images: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for digest, outcome in sorted(latest.items()):
        images.append(_image_row(digest, outcome, api))
        if isinstance(outcome, TagResult):
            labels += _label_rows(digest, outcome)
    return images, labels


def _image_row(digest: str, outcome: TagResult | Failure, api: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "api": api,
        "key_sha256": digest,
        "image_key": outcome.image_key,
        "image_uri": outcome.image_uri,
        "version": outcome.version or "",
        "content_sha256": outcome.content_sha256,
        "attempts": outcome.attempts,
    }
    if isinstance(outcome, TagResult):
        nothing = dict.fromkeys(("error", "code", "message", *LIFE_COLUMNS))
        return {
            **row,
            **nothing,
            "status": Status.TAGGED.value,
            "labels_count": len(outcome.labels),
            "tagged_at": outcome.tagged_at,
        }
    return {
        **row,
        "status": _status_of(outcome).value,
        "labels_count": 0,
        "error": outcome.error,
        "code": outcome.code,
        "message": outcome.message,
        "tagged_at": outcome.failed_at,
        # A store finds answers by this digest, and this image has none.
        "content_sha256": outcome.content_sha256 if outcome.is_final else None,
        "tries": None if outcome.is_final else outcome.tries,
        "first_failed_at": outcome.first_failed_at,
        "next_try_at": outcome.next_try_at,
        MISSING_SINCE: None,
    }


def _status_of(failure: Failure) -> Status:
    if failure.is_final:
        return Status.FAILED
    return Status.GAVE_UP if failure.has_given_up else Status.WAITING


def holds_answer(row: Mapping[str, Any]) -> bool:
    """Tell whether an image's row is that of an answer: labels, or a failure for good.

    :param row: a row of ``rows_of``, or one that holds its ``status``.
    """
    return row["status"] in ANSWERED


def merged(row: dict[str, Any], held: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the row to store for an image without an answer; None to leave the held row.

    An answer for the same version stays. The labels of an earlier version stay, too, and with them
    the digest of their bytes, for which an answer was paid.

    :param row: a row of ``rows_of`` that holds no answer.
    :param held: the row that the store holds.
    """
    if holds_answer(held) and held["version"] == row["version"]:
        return None
    if held["status"] in (Status.FAILED.value, UNFINISHED):
        return row
    kept = ("content_sha256", "labels_count")
    times = ("tagged_at",) if held["content_sha256"] or held["labels_count"] else ()
    return row | {name: held[name] for name in (*kept, *times)}


def _label_rows(digest: str, result: TagResult) -> Iterator[dict[str, Any]]:
    for rank, label in enumerate(result.labels, start=1):
        yield {
            "api": result.api,
            "key_sha256": digest,
            "rank": rank,
            "image_key": result.image_key,
            "image_uri": result.image_uri,
            "label": label.name,
            "probability": label.probability,
            "category": label.category,
            "subcategory": label.subcategory,
            "scene": label.scene,
            "tagged_at": result.tagged_at,
            ORIGINAL_LABEL: label.original,
        }


def without_originals(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of labels without the column ``original_label``, which older tables lack."""
    return [
        {name: value for name, value in row.items() if name != ORIGINAL_LABEL} for row in labels
    ]


def state_of(image: Mapping[str, Any]) -> StoredState:
    """Return the state of an image from its row.

    :param image: a row of ``rows_of``; its times may be ISO texts.
    """
    return StoredState(
        image["version"],
        Status(image["status"]),
        image["image_uri"] is not None,
        _moment(image.get("next_try_at")),
        image.get("tries") or 0,
        _moment(image.get("first_failed_at")),
    )


def _moment(value: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def outcome_of(
    image: Mapping[str, Any], labels: Iterable[Mapping[str, Any]]
) -> TagResult | Failure:
    """Return the answer from an image's row and the rows of its labels.

    Renamed labels get the service's own names back, since each run applies a label map of its own.

    :param image: a row of ``rows_of`` that is tagged or failed, or one that has kept the digest of
        an earlier answer.
    :param labels: the rows of its labels, in the order of ``rank``.
    """
    if image["status"] == Status.FAILED.value:
        return Failure(
            image["image_key"],
            image["image_uri"],
            image["error"],
            image["code"],
            image["message"],
            0,
            image["tagged_at"],
            content_sha256=image["content_sha256"],
        )
    return TagResult(
        image["image_key"],
        image["image_uri"],
        tuple(map(_label, labels)),
        image["api"],
        image["tagged_at"],
        content_sha256=image["content_sha256"],
    )


def _label(row: Mapping[str, Any]) -> Label:
    original = row.get(ORIGINAL_LABEL)
    return Label(
        row["label"] if original is None else original,
        row["probability"],
        row["category"],
        row["subcategory"],
        row["scene"],
    )
