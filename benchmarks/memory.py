"""The memory of a benchmark's process."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mb() -> float:
    """Return the peak memory of this process in MB."""
    # On Linux ru_maxrss starts at the parent's value, which hides a smaller peak.
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
