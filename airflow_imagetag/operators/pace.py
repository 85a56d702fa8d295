"""Private: the pace of a run: rate, images in flight, and the quota that workers share."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_imagetag.engine.settings import EngineSettings
from airflow_imagetag.labellers.model_threads import max_images_in_flight, threads_of
from airflow_imagetag.operators.options import Options
from airflow_imagetag.services.account import Account
from airflow_imagetag.stores.open_store import BatchBounds

if TYPE_CHECKING:
    from airflow_imagetag.quota.shared import SharedSchedule

DEFAULT_MAX_IN_FLIGHT = 256
"""With a quota: only a large quota or a slow service needs as many."""

DEFAULT_WITHOUT_QUOTA = 64
"""Without a quota: more images in flight make no service faster, and cost memory."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a run.

    :param account: the account that labels.
    :param options: the operator's checked parameters.
    """

    account: Account
    options: Options

    @property
    def requests_per_second(self) -> float | None:
        """Rate of this run; None for no limit."""
        return self.options.requests_per_second or self.account.requests_per_second

    @property
    def max_in_flight(self) -> int:
        """Maximum number of images handled at the same time."""
        default = DEFAULT_MAX_IN_FLIGHT
        if self.account.local is not None:
            default = max_images_in_flight(self.account.local)
        elif self.requests_per_second is None:
            default = DEFAULT_WITHOUT_QUOTA
        return self.options.max_in_flight or self.account.max_in_flight or default

    @property
    def shared_through(self) -> str | None:
        """Id of the connection that shares the quota between workers; None for no sharing."""
        return None if self.requests_per_second is None else self.account.quota_conn_id

    def settings(self, *, batch: BatchBounds, reads_inline: bool) -> EngineSettings:
        """Return the engine's settings.

        :param batch: bounds of a batch, unless the task has its own.
        :param reads_inline: the entries are in memory.
        """
        seconds = self.options.flush_seconds
        return EngineSettings(
            **self.options.tuning.engine,
            max_in_flight=self.max_in_flight,
            requests_per_second=self.requests_per_second,
            shared_requests_per_second=self.account.requests_per_second,
            batch_size=self.options.batch_size or batch.images,
            flush_seconds=batch.seconds if seconds is None else seconds,
            reads_inline=reads_inline,
        )

    def open_schedule(self) -> AbstractContextManager[SharedSchedule | None]:
        """Return the slots of the shared quota; None for no sharing.

        :raises ConfigurationError: the connection cannot be used.
        """
        conn_id = self.shared_through
        if conn_id is None:
            return nullcontext()
        from airflow_imagetag.quota.shared import open_schedule

        account = self.account
        return closing(
            open_schedule(
                conn_id,
                account.quota_name,
                fallback_share=account.quota_fallback_share,
                timing=self.options.tuning.quota,
            )
        )

    def describe(self) -> str:
        """Return the pace for the log."""
        rate = self.requests_per_second
        shared = self.shared_through
        return (
            f"{self._at_a_time()}, "
            f"{'no limit of' if rate is None else f'{rate:g}'} requests per second"
            + (f", a quota shared through {shared!r}" if shared else "")
        )

    def _at_a_time(self) -> str:
        """Return the number of images at a time for the log: a model labels fewer than are read."""
        if self.account.local is None:
            return f"up to {self.max_in_flight} at a time"
        labelled = min(threads_of(self.account.local), self.max_in_flight)
        return f"{labelled} labelled at a time, up to {self.max_in_flight} in flight"
