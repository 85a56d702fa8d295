"""Labels a folder of difficult images in forked processes, see :mod:`forked`."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path
from typing import Any

from databases import TaskInstance
from forked import preload, serve
from PIL import Image

from airflow_imagetag.operators.imagetag import ImageTagOperator


def label(job: dict[str, Any], output: str) -> int:
    """Label the images of a folder; write the outcome of each, and the memory that it took."""
    logging.basicConfig(filename=f"{output}.warnings", level=logging.WARNING, force=True)
    before = peak_bytes()
    task_instance = TaskInstance()
    task = ImageTagOperator(
        task_id="label",
        images=[
            {"image_key": path.name, "image_uri": str(path)}
            for path in sorted(Path(job["folder"]).iterdir())
        ],
        oversize=job["oversize"],
        max_failure_ratio=1,
    )
    labels = task.execute({"ti": task_instance})
    failures = task_instance.xcoms["failures"]
    result = {
        "tagged": sorted(set(labels["image_key"])),
        "failed": dict(zip(failures["image_key"], failures["error"], strict=True)),
        "sent": dict(zip(failures["image_key"], map(int, failures["attempts"]), strict=True)),
        "summary": task_instance.xcoms["summary"],
        "peak_bytes": peak_bytes() - before,
    }
    with Path(output).open("a") as file:
        file.write("\n" + json.dumps(result))
    return 0


def peak_bytes() -> int:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    preload("airflow", "pandas", "airflow_imagetag.operators.run")
    serve(label, Image.init)
