"""An example DAG under a real scheduler."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_scheduler_runs_the_example(cluster, tmp_path):
    """``airflow dags trigger`` makes a run that the scheduler's own processes bring to success."""
    folder = cluster.home.environment["PHOTOGRAPHS"]
    conf = {"folder": folder, "output": str(tmp_path)}
    run_id = cluster.trigger("label_images", conf)
    assert cluster.wait(run_id) == "success", cluster.logs()
    states = dict(
        cluster.home.query("select task_id, state from task_instance where run_id = ?", run_id)
    )
    assert states == dict.fromkeys(("list_photographs", "label", "write_labels"), "success")
    assert json.loads((tmp_path / "summary.json").read_text())["tagged"] == 3
    assert cluster.emulator.stats.billed == 3
    import pandas as pd

    labels = pd.read_parquet(tmp_path / "labels.parquet")
    assert set(labels["image_key"]) == {path.name for path in Path(folder).iterdir()}
