"""Private: one quota for all workers, as a schedule of slots in Redis or in an SQL database."""

from __future__ import annotations

from dataclasses import dataclass

REMEDY = "Restore it, or set quota_fallback_share in the connection, so that tasks go on meanwhile."
"""End of the messages about a shared quota that is out of reach."""


@dataclass(frozen=True, slots=True)
class QuotaTiming:
    """Time limits of a shared quota.

    :param max_outage_seconds: maximum time that the quota may be out of reach; then the run ends.
    :param ask_again_seconds: time between two attempts to reach it, while a run takes its share.
    :param redis_timeout_seconds: maximum time in which a Redis connects, and in which it answers.
    """

    max_outage_seconds: float = 15.0
    ask_again_seconds: float = 10.0
    redis_timeout_seconds: float = 2.0


DEFAULT_TIMING = QuotaTiming()
