"""Who may see the pages, asked of Airflow's own application with its simple auth manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import pytest
from access_driver import ROLES
from databases import Database
from pictures import photographed, write

from airflow_imagetag.stores import SqlLabelStore

if airflow.__version__.startswith("2."):
    pytest.skip("Airflow 2 has no such pages", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "0" * 64
PATHS = {
    "/": 200,
    "/products": 307,
    "/products/": 307,
    **{f"/products/{page}": 200 for page in ("overview", "gallery", "labels", "failures", "runs")},
    f"/products/image?key={DIGEST}": 404,
    f"/products/thumbnail?api=x&key={DIGEST}": 404,
    "/run?dag_id=a&run_id=b&task_id=c&map_index=-1": 200,
    "/static/style.css": 200,
    "/static/page.js": 200,
    "/static/..%2fplugin.py": 404,
    "/other/overview": 404,
    "/nothing/at/all": 404,
    "/openapi.json": 404,
    "/docs": 404,
}
"""Every route, and addresses that are none, with the status for a reader who may see them."""


@pytest.fixture
def answers(sqlite: Database, tmp_path: Path, photographs: list[Path]) -> dict[str, Any]:
    """Ask all paths as each reader."""
    write(SqlLabelStore("warehouse", "product_labels"), photographed(photographs, 5))
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__IMAGETAG__UI_STORES": "products = warehouse:product_labels",
        "AIRFLOW_CONN_WAREHOUSE": sqlite.connection_json,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "access_driver.py"), *PATHS],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_each_route_is_checked_by_airflow(answers):
    """Without a login 401, with a forged one or no role 403, and what is there for the others."""
    found = answers["found"]
    statuses = {
        role: {path: answer["status"] for path, answer in by_path.items()}
        for role, by_path in found.items()
    }
    assert set(statuses["anonymous"].values()) == {401}
    assert set(statuses["forged"].values()) == {403}
    assert set(statuses["none"].values()) == {403}
    for role in ROLES[1:]:
        assert statuses[role] == PATHS
    refused = [found[role][path] for role in ("anonymous", "forged", "none") for path in PATHS]
    assert not any(answer["tells"] for answer in refused)
    every = [answer for by_path in found.values() for answer in by_path.values()]
    assert all(answer["policy"].startswith("default-src 'none'") for answer in every)
    assert not any("unsafe" in answer["policy"] for answer in every)
    assert {answer["nosniff"] for answer in every} == {"nosniff"}
    assert {answer["referrer"] for answer in every} == {"no-referrer"}
    assert answers["posted"] == 405
    assert {view["destination"] for view in answers["views"]} == {"nav", "task_instance"}
