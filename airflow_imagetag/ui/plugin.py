"""Private: the pages as a plugin of Airflow 3.1 and newer.

Airflow loads it in every process, those of tasks included, so it imports nothing heavy: the
application is made when its first request comes.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin

from airflow_imagetag.adapters.airflow_sdk import conf
from airflow_imagetag.links.imagetag import PREFIX, are_pages_shown
from airflow_imagetag.ui.asgi import LazyApplication

NAME = "Image labels"


def _below(path: str) -> str:
    """Return the path of a page, below the one that Airflow is served at."""
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{base}{PREFIX}/{path}"


def _views() -> list[dict[str, Any]]:
    task = "dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"
    return [
        {
            "name": NAME,
            "href": _below(""),
            "destination": "nav",
            "category": "browse",
            "url_route": "image-labels",
        },
        {
            "name": NAME,
            "href": _below(f"run?{task}"),
            "destination": "task_instance",
            "url_route": "image-labels-of-task",
        },
    ]


class ImageTagPlugin(AirflowPlugin):
    """The pages in Airflow's UI; nothing where ``[imagetag] ui_stores`` is empty."""

    name = "imagetag"
    fastapi_apps = (
        [{"app": LazyApplication(), "url_prefix": PREFIX, "name": NAME}]
        if are_pages_shown()
        else []
    )
    external_views = _views() if are_pages_shown() else []
