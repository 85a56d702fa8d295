"""The button of a task that leads to the labels of its run."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from airflow_imagetag.adapters.airflow_sdk import BaseOperatorLink, airflow_version, conf

__all__ = ["ImageLabelsLink"]

PREFIX = "/imagetag"
"""Path of the pages below that of Airflow."""

FIRST_VERSION = (3, 1)
"""First version of Airflow that shows pages of plugins beside its own."""


def are_pages_shown() -> bool:
    """Tell whether Airflow's UI has the pages."""
    from airflow_imagetag.backends.configuration import ui_stores

    return airflow_version() >= FIRST_VERSION and bool(ui_stores().strip())


class ImageLabelsLink(BaseOperatorLink):
    """Leads from a task to the page of its run; to nothing where Airflow does not show the pages.

    ``ImageTagOperator`` and ``NewImagesSensor`` have it.
    """

    name = "Image labels"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address of the page, or an empty text.

        :param operator: the task.
        :param ti_key: names the task, the run and the map index.
        """
        del operator
        if not are_pages_shown():
            return ""
        names = ("dag_id", "run_id", "task_id", "map_index")
        query = urlencode({name: getattr(ti_key, name) for name in names})
        base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return f"{base}{PREFIX}/run?{query}"
