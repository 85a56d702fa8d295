"""Private: compares source and store, and marks or deletes images that have left the source."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from airflow_imagetag.errors import ConfigurationError, TooManyMissingError
from airflow_imagetag.lineage.metrics import Metrics
from airflow_imagetag.lineage.traces import run_span
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.selection.missing import (
    Change,
    Comparison,
    HeldImages,
    compared,
    held_images,
)
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores.base import LabelStore

log = logging.getLogger(__name__)

ALL_APIS = "all"
"""Value of ``api`` for the images of every interface."""

SAMPLED_KEYS = 20
"""Maximum number of keys in the summary."""

NAMED_KEYS = 3
"""Number of keys that an error message names."""


class OnMissing(enum.StrEnum):
    """The treatment of an image that has left its source."""

    MARK = "mark"
    DELETE = "delete"


def parse_on_missing(value: str) -> OnMissing:
    """Return the parameter ``on_missing``.

    :raises ConfigurationError: the value is not allowed.
    """
    try:
        return OnMissing(value)
    except ValueError:
        names = " or ".join(map(repr, map(str, OnMissing)))
        raise ConfigurationError(f"on_missing must be {names}, not {value!r}.") from None


@dataclass(frozen=True, slots=True)
class Synchronization:
    """One comparison of a source with a store, and the changes that follow from it.

    :param source: all images.
    :param store: where the labels are kept.
    :param on_missing: the treatment of images that have left the source.
    :param max_missing_ratio: share of the images that may have left it, from 0 to 1.
    :param api: only images of this interface; ``all`` for every one; None for a choice.
    :param imagetag_conn_id: connection that names the interface where the store holds several.
    :param task_tags: names the task in metrics.
    """

    source: ImageSource
    store: LabelStore
    on_missing: OnMissing
    max_missing_ratio: float
    api: str | None
    imagetag_conn_id: str
    task_tags: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Compare and change, and return the summary.

        :raises TooManyMissingError: the source is empty, or lacks too many images.
        """
        with run_span({}, "imagetag.sync") as counts:
            summary = self._run()
            counts.update(summary)
        return summary

    def _run(self) -> dict[str, Any]:
        started = time.monotonic()
        wanted = None if self.api == ALL_APIS else self.api
        with held_images(self.store.held(api=wanted)) as held:
            api = self._chosen_api(held)
            log.info(
                "%r holds %d images%s; reading %r",
                self.store,
                held.apis.total() if api is None else held.apis[api],
                "" if api is None else f" of {api}",
                self.source,
            )
            test = self.source.key_test()
            with compared(held.of(api), self.source.keys(), test) as comparison:
                self._check(comparison)
                counts = self._change(comparison, api)
                summary = self._summary(comparison, api) | counts
        summary["elapsed_seconds"] = round(time.monotonic() - started, 3)
        metrics = Metrics({"api": api or ALL_APIS, **self.task_tags})
        for name in ("missing", "marked", "unmarked", "deleted"):
            metrics.count(f"sync.{name}", summary[name])
        log.info(
            "Compared %(held)d images with %(source)d of the source: %(missing)d have left it, "
            "%(still_missing)d had left it before, %(returned)d came back; %(marked)d marked, "
            "%(unmarked)d unmarked, %(deleted)d deleted",
            summary,
        )
        return summary

    def _chosen_api(self, held: HeldImages) -> str | None:
        """Return the interface whose images are compared; None for all of them."""
        if self.api == ALL_APIS:
            return None
        if self.api is not None:
            return self.api
        if len(held.apis) <= 1:
            return next(iter(held.apis), None)
        from airflow_imagetag.hooks.imagetag import ImageTagHook

        return ImageTagHook(self.imagetag_conn_id).api

    def _check(self, comparison: Comparison) -> None:
        """Check that not too many images have left the source.

        :raises TooManyMissingError: the source is empty, or lacks too many.
        """
        missing = comparison.changes[Change.MISSING]
        if not missing:
            return
        if not comparison.source:
            raise TooManyMissingError(
                f"The source {self.source!r} is empty, and the store holds {comparison.held:,} of "
                "its images. Nothing was changed. Correct the source; if all of its images are "
                "meant to go, delete them with store.delete(keys)."
            )
        ratio = comparison.missing_ratio
        if ratio > self.max_missing_ratio:
            first = islice(comparison.keys(Change.MISSING), NAMED_KEYS)
            raise TooManyMissingError(
                f"{missing:,} of {comparison.held:,} images have left the source ({ratio:.1%}), "
                f"more than max_missing_ratio={self.max_missing_ratio:g} allows, such as "
                f"{', '.join(redact(key) for key in first)}. Nothing was changed. Check that the "
                "source gives all images of the store; if they are meant to go, raise "
                "max_missing_ratio for one run."
            )

    def _change(self, comparison: Comparison, api: str | None) -> dict[str, int]:
        """Change the store, and return the numbers of changed images."""
        counts = {"marked": 0, "unmarked": 0, "deleted": 0}
        changes, store = comparison.changes, self.store
        if changes[Change.RETURNED]:
            keys = comparison.keys(Change.RETURNED)
            counts["unmarked"] = store.mark(keys, missing_since=None, api=api)
        if self.on_missing is OnMissing.MARK and changes[Change.MISSING]:
            keys = comparison.keys(Change.MISSING)
            counts["marked"] = store.mark(keys, missing_since=datetime.now(UTC), api=api)
        gone = (Change.MISSING, Change.STILL_MISSING)
        if self.on_missing is OnMissing.DELETE and any(changes[one] for one in gone):
            counts["deleted"] = store.delete(comparison.keys(*gone), api=api)
        return counts

    def _summary(self, comparison: Comparison, api: str | None) -> dict[str, Any]:
        sample = islice(comparison.keys(Change.MISSING), SAMPLED_KEYS)
        return {
            "api": api,
            "on_missing": str(self.on_missing),
            "source": comparison.source,
            "held": comparison.held,
            **{str(change): comparison.changes[change] for change in Change},
            "missing_ratio": round(comparison.missing_ratio, 6),
            "missing_sample": [redact(key) for key in sample],
            "store": self.store.serialize(),
        }
