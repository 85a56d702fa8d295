"""Count the cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

_QUOTA_FILE: Final = Path("/sys/fs/cgroup/cpu.max")
"""CPU quota of a container in microseconds, and the period that it holds for."""


def usable_cores(quota_file: Path = _QUOTA_FILE) -> int:
    """Return the number of cores that this process may use at the same time, at least 1.

    :param quota_file: the quota of the container, in the form of cgroup 2.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = os.cpu_count() or 1 if affinity is None else len(affinity(0))
    return max(1, min(cores, _quota(quota_file) or cores))


def _quota(path: Path) -> int | None:
    """Return the container's quota in cores, rounded up; None for no quota."""
    try:
        quota, period = map(float, path.read_text().split())
    # There is no such file outside of a container, and "max" is no number.
    except (OSError, ValueError):
        return None
    return math.ceil(quota / period) if period > 0 else None
