"""Private: the command that installs an extra of the package into the environment that runs."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "airflow-provider-imagetag"

OFFICIAL = "https://raw.githubusercontent.com/apache/airflow/constraints-{}/constraints-{}.txt"
"""Airflow's own constraints of a version, for a version of Python."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of this process, as far as an installation needs it.

    :param airflow: version of Airflow, which an installation must keep.
    :param python: major and minor version of Python.
    :param executable: path of Python.
    :param has_uv: uv is found.
    :param is_active: uv would choose this environment by itself.
    :param checkout: folder that the package was installed from; None for an index.
    :param is_editable: the package is used in that folder.
    """

    airflow: str
    python: str
    executable: str
    has_uv: bool
    is_active: bool
    checkout: Path | None = None
    is_editable: bool = False

    def command(self, extra: str) -> str:
        """Return the line for a shell that installs an extra, and keeps Airflow as it is."""
        options = "-e " if self.is_editable and self.checkout else ""
        name = DISTRIBUTION if self.checkout is None else "."
        folder = "" if self.checkout is None else f"cd {shlex.quote(str(self.checkout))} && "
        wanted = f"{options}'{name}[{extra}]' \"apache-airflow=={self.airflow}\""
        if self.has_uv:
            place = "" if self.is_active else f"--python {shlex.quote(self.executable)} "
            return f"{folder}uv pip install {place}{wanted}"
        # Without them, pip tries hundreds of versions of the Amazon provider's dependencies.
        return f"{folder}pip install {wanted} -c {self._constraints()}"

    def _constraints(self) -> str:
        """Return the versions that fit to Airflow: those of the checkout, or Airflow's own."""
        line = ".".join(self.airflow.split(".")[:2])
        own = f"constraints/airflow-{line}.txt"
        if self.checkout is not None:
            file = self.checkout / own
            if file.is_file() and f"apache-airflow=={self.airflow}" in file.read_text().split():
                return own
        return OFFICIAL.format(self.airflow, self.python)


def this_environment() -> Environment:
    """Return the environment of this process."""
    import airflow

    checkout, is_editable = _checkout()
    return Environment(
        airflow=airflow.__version__,
        python=".".join(platform.python_version_tuple()[:2]),
        executable=sys.executable,
        has_uv=shutil.which("uv") is not None,
        is_active=os.environ.get("VIRTUAL_ENV") == sys.prefix,
        checkout=checkout,
        is_editable=is_editable,
    )


def _checkout() -> tuple[Path | None, bool]:
    """Return the folder that the package was installed from, and whether it is used there."""
    try:
        origin = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return None, False
    url = urlsplit(origin.get("url", ""))
    folder = Path(unquote(url.path))
    if url.scheme != "file" or "dir_info" not in origin or not folder.is_dir():
        return None, False
    return folder, bool(origin["dir_info"].get("editable"))
