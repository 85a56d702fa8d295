"""The ``[imagetag]`` section of Airflow's configuration."""

from __future__ import annotations

import re

from airflow.providers.common.compat.sdk import conf

SECTION = "imagetag"


def allowed_local_folders() -> list[str]:
    """Return the folders under which local images named by data may be read."""
    text = conf.get(SECTION, "allowed_local_paths", fallback="") or ""
    return [folder.strip() for folder in re.split(r"[,:]", text) if folder.strip()]
