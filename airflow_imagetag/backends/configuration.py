"""The default connection, and the ``[imagetag]`` section of Airflow's configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_imagetag.adapters.airflow_sdk import conf

if TYPE_CHECKING:
    from airflow_imagetag.selection.retry_schedule import RetrySchedule

CONN_TYPE = "imagetag"
"""Airflow's type of a connection that describes an account."""

DEFAULT_CONN_ID = "imagetag_default"
"""Connection of hook, operator, sensor and trigger, unless they name another."""

SECTION = "imagetag"
"""Section of Airflow's configuration."""

NO_CONNECTIONS = "none"
"""Value of ``allowed_connections`` if image URIs from data may name no connection."""

DEFAULT_MAX_RESULT_ROWS = 500_000
"""Default maximum of labels in an XCom: about 15 MB in the metadata database."""


def allowed_local_folders() -> list[str]:
    """Return the folders under which local images that data names may be read."""
    text = conf.get(SECTION, "allowed_local_paths", fallback="") or ""
    return [folder.strip() for folder in re.split(r"[,:]", text) if folder.strip()]


def allowed_private_hosts() -> list[str]:
    """Return the hosts of private networks that images may be downloaded from."""
    text = conf.get(SECTION, "allowed_private_hosts", fallback="") or ""
    return [host.strip() for host in text.split(",") if host.strip()]


def allowed_connections() -> frozenset[str] | None:
    """Return the connections that image URIs from data may name; None for no list of them."""
    text = conf.get(SECTION, "allowed_connections", fallback="") or ""
    if text.strip().lower() == NO_CONNECTIONS:
        return frozenset()
    return frozenset(filter(None, map(str.strip, text.split(",")))) or None


def user_agent() -> str:
    """Return the header User-Agent of the worker's downloads."""
    from airflow_imagetag.transport.headers import USER_AGENT

    return conf.get(SECTION, "user_agent", fallback="") or USER_AGENT


def model_cache_path() -> str | None:
    """Return the folder that keeps local models; None for the user's own cache."""
    return conf.get(SECTION, "model_cache_path", fallback="") or None


def checkpoint_path() -> str | None:
    """Return the folder of checkpoints; None if runs without a store keep no checkpoint."""
    return conf.get(SECTION, "checkpoint_path", fallback="") or None


def max_result_rows() -> int:
    """Return the maximum number of labels that a run without a store may return."""
    return int(conf.getint(SECTION, "max_result_rows", fallback=DEFAULT_MAX_RESULT_ROWS))


def retry_schedule() -> RetrySchedule:
    """Return the tries of images whose fault may pass.

    :raises ConfigurationError: an option is not a duration.
    """
    from airflow_imagetag.selection.retry_schedule import (
        RetrySchedule,
        parse_duration,
        parse_pauses,
    )

    default = RetrySchedule()
    pauses = conf.get(SECTION, "retry_pauses", fallback="")
    give_up = conf.get(SECTION, "give_up_after", fallback="")
    return RetrySchedule(
        parse_pauses("retry_pauses", pauses) if pauses else default.pauses,
        parse_duration("give_up_after", give_up) if give_up else default.give_up_after,
    )


def ui_fetches_urls() -> bool:
    """Tell whether pages may download http(s) images to show small pictures of them."""
    return bool(conf.getboolean(SECTION, "ui_fetch_urls", fallback=False))


def ui_stores() -> str:
    """Return the stores that Airflow's UI shows, as written; empty for none."""
    return conf.get(SECTION, "ui_stores", fallback="") or ""
