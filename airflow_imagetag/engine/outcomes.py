"""Turns one entry of a source into its outcome: labels, a failure, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.failures import FailureRecorder
from airflow_imagetag.engine.image_pipeline import GaveUpError, ImagePipeline, StoppingError
from airflow_imagetag.engine.prefetcher import PreparedEntry
from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.engine.shared_causes import SharedCauses
from airflow_imagetag.errors import ConfigurationError, Decision
from airflow_imagetag.models import Image, RejectedImage, SkippedImage

__all__ = ["OutcomeMaker", "StoppingError"]


class OutcomeMaker:
    """Labels images and records failures.

    :param pipeline: labels one image.
    :param counts: the run's counts.
    :param end_with: ends the run with an error.
    :param has_failed: tells whether an earlier run failed for an image.
    :param on_loaded: is called with the size of an image's bytes when a worker has loaded them.
    """

    def __init__(
        self,
        pipeline: ImagePipeline,
        counts: Counts,
        end_with: Callable[[Exception], None],
        has_failed: Callable[[Image], bool],
        on_loaded: Callable[[PreparedEntry, int], None],
    ) -> None:
        self._pipeline = pipeline
        self._counts = counts
        self._end_with = end_with
        self._has_failed = has_failed
        self._on_loaded = on_loaded
        self._recorder = FailureRecorder()
        self._causes = SharedCauses()

    def report(self) -> None:
        """Log the causes that many images shared."""
        self._causes.report()

    async def outcome_of(self, taken: PreparedEntry) -> Outcome | None:
        """Return the outcome of an entry; None for an entry that needs no work.

        :raises StoppingError: the run ends first.
        """
        entry = taken.entry
        if isinstance(entry, Image):
            try:
                prepared = taken.prepared
                if prepared is None:
                    prepared = await self._pipeline.prepare(entry)
                    self._on_loaded(taken, len(prepared.payload.content or b""))
                result = await self._pipeline.label(prepared, has_failed=self._has_failed(entry))
            except GaveUpError as given_up:
                # A service that reads objects itself may name a cause that they share, too.
                if given_up.attempts and getattr(given_up.error, "cause", None) is None:
                    self._causes.record_readable()
                if given_up.error.decision is Decision.STOP:
                    self._end_with(given_up.error)
                elif ending := self._causes.record(given_up.error):
                    self._end_with(ending)
                return self._recorder.record(entry, given_up)
            self._causes.record_readable()
            return result
        if isinstance(entry, RejectedImage):
            return self._recorder.record(entry, GaveUpError(entry.error, 0))
        if not isinstance(entry, SkippedImage):
            # A source of another package may be written without types.
            raise ConfigurationError(
                f"The source yielded an entry of the class {type(entry).__name__}. Yield Image "
                "objects."
            )
        self._counts.skipped += 1
        return None
