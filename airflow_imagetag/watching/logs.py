"""The logger of a task or trigger: of structlog on Airflow 3, of the standard library before."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """The part of Airflow's logger that sensor and trigger use."""

    def info(self, text: str, /, *values: Any) -> Any:
        """Log a message; the values are put in with ``%``."""

    def warning(self, text: str, /, *values: Any) -> Any:
        """Log a warning."""

    def exception(self, text: str, /, *values: Any) -> Any:
        """Log an error with the traceback of the exception that is being handled."""
