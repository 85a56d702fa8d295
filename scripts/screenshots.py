"""Make the screenshots of docs/images: a real Airflow, its pages of labels, and Debian's chromium.

The labels are those of the local model for photographs and parts of them.

It also walks from Airflow's first page to unlikely labels, and from a task to the labels of its
run, and prints the number of clicks: ``--walk`` does only this, on any Airflow from 3.1 on, and
``--rows 20000`` does it among more images, which repeat the labels of the photographs.

It needs the packages ``chromium``, ``chromium-driver`` and a Chinese font, such as
``fonts-wqy-microhei``. Nothing is left running.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "ui"))

from browsers import Browser, free_port, missing_program, opened_browser, started, wait_for  # noqa: E402

if TYPE_CHECKING:
    from airflow_imagetag.stores.runs import RunRecord

WORK = ROOT / "build" / "screenshots"
IMAGES = ROOT / "docs" / "images"
DAG_ID = "label_photographs"
DAG = """
from airflow.sdk import DAG
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.stores import SqlLabelStore

with DAG("label_photographs"):
    store = SqlLabelStore("warehouse", "product_labels")
    ImageTagOperator(task_id="label", images={images}, store=store)
"""
PARTS = 400
"""Number of parts of photographs, each an image of its own."""


def main() -> int:
    """Write a file for each page, and print what the browser's console says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walk", action="store_true", help="count the clicks, make no pictures")
    parser.add_argument("--rows", type=int, default=0, help="number of further images")
    given = parser.parse_args()
    if missing := missing_program():
        sys.stderr.write(f"There is no {missing}: apt-get install chromium chromium-driver\n")
        return 1
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="photographs-") as folder:
        return _shot(_photographs(Path(folder)), given)


def _shot(photographs: list[Path], given: argparse.Namespace) -> int:
    port = free_port()
    environment = _environment(photographs, port)
    os.environ.update(environment)
    _fill(photographs, given.rows)
    dags = WORK / "dags"
    dags.mkdir()
    (dags / "label.py").write_text(DAG.format(images=[str(path) for path in photographs]))
    return _opened(environment, port, is_walk=given.walk)


def _opened(environment: dict[str, str], port: int, *, is_walk: bool) -> int:
    with _airflow(environment, port) as url, opened_browser(WORK) as browser:
        # Airflow's own page logs the only user in.
        browser.open(f"{url}/", 8)
        print(f"Clicks to unlikely labels: {_walk(browser, url)}")
        print(f"Clicks from a task to its run: {_walk_from_task(browser, url, _run_id())}")
        if not is_walk:
            _pages(browser, url)
            print(f"Written: {IMAGES}")
        problems = [
            line
            for line in browser.console()
            # The other sentence is of the attributes of Airflow's own frame.
            if "imagetag" in line and "sandbox attribute" not in line
        ]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _photographs(into: Path) -> list[Path]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed: run 'make venv'")
    folder = Path(spec.origin).parent / "data"
    names = ("brick", "camera", "chelsea", "coffee", "motorcycle_left", "rocket")
    files = [path for name in names for path in folder.glob(f"{name}.*")]
    return [Path(shutil.copy(path, into)) for path in files]


def _environment(photographs: list[Path], port: int) -> dict[str, str]:
    connection = {"conn_type": "sqlite", "host": str(WORK / "warehouse.db")}
    return {
        **os.environ,
        "AIRFLOW_HOME": str(WORK / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(WORK / "dags"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__IMAGETAG__UI_STORES": "products = warehouse:product_labels",
        "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(photographs[0].parent),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps(connection),
        "AIRFLOW_CONN_IMAGETAG_DEFAULT": json.dumps(
            {"conn_type": "imagetag", "extra": {"api": "local"}}
        ),
    }


def _fill(photographs: list[Path], rows: int) -> None:
    from airflow_imagetag.hooks.imagetag import ImageTagHook
    from airflow_imagetag.models import Failure, TagResult
    from airflow_imagetag.stores import SqlLabelStore

    chance = random.Random(4)
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(days=28)
    hook = ImageTagHook()
    outcomes: list[TagResult | Failure] = []
    for number in range(PARTS):
        path = _part(photographs[number % len(photographs)], number, chance)
        key = f"shop/{number:05d}/{path.name}"
        at = first + timedelta(minutes=100 * number)
        if number % 90 == 89:
            error = ("ImageDecodeError", None, "The image cannot be decoded.")
            outcomes.append(Failure(key, str(path), *error, 1, at))
            continue
        result = hook.tag(path.read_bytes())
        outcomes.append(replace(result, image_key=key, image_uri=str(path), tagged_at=at))
    labelled = [outcome for outcome in outcomes if isinstance(outcome, TagResult)]
    with SqlLabelStore("warehouse", "product_labels").open(hook.api) as opened:
        opened.write(outcomes)
        opened.write(
            [
                replace(labelled[number % len(labelled)], image_key=f"more/{number:07d}.jpg")
                for number in range(rows)
            ]
        )
        for day in range(1, 29):
            opened.record_run(_run_at(first + timedelta(days=day), day, hook.api))


def _run_at(at: datetime, day: int, api: str) -> RunRecord:
    """Return the record of a daily run."""
    from airflow_imagetag.stores.runs import RunOutcome, RunRecord

    return RunRecord(
        f"run {day}",
        api,
        at,
        at,
        at + timedelta(seconds=2),
        dag_id="label_products",
        task_id="label",
        run_id=f"scheduled__{at.isoformat()}",
        map_index=-1,
        try_number=1,
        tagged=14,
        calls=14,
        outcome=RunOutcome.SUCCESS,
    )


def _part(photograph: Path, number: int, chance: random.Random) -> Path:
    """Write a part of a photograph beside it."""
    with Image.open(photograph) as image:
        width, height = (int(side * chance.uniform(0.6, 1)) for side in image.size)
        left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
        part = image.crop((left, top, left + width, top + height)).convert("RGB")
    path = photograph.with_name(f"{photograph.stem}-{number}.jpg")
    part.save(path, quality=88)
    return path


@contextlib.contextmanager
def _airflow(environment: dict[str, str], port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "airflow"]
    with (WORK / "migrate.log").open("w") as log:
        for arguments in (("db", "migrate"), ("dags", "test", DAG_ID)):
            subprocess.run([*command, *arguments], env=environment, stdout=log, check=True)
    server = [*command, "api-server", "--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    server_log = WORK / "server.log"
    with started(server, environment, server_log):
        wait_for(f"http://127.0.0.1:{port}/api/v2/version", server_log)
        yield f"http://127.0.0.1:{port}"


def _walk(browser: Browser, url: str) -> int:
    """Find the photographs that were labelled 'tabby' with less than 0.3, as a reader does."""
    browser.open(f"{url}/", 5)
    browser.click("//button[contains(., 'Browse')]", "xpath")
    browser.click("//a[contains(., 'Image labels')]", "xpath")
    browser.enter("iframe")
    browser.click(".stores a")
    browser.click("nav a[href^=gallery]")
    browser.write("[name=label]", "tabby")
    browser.write("[name=max]", "0.3")
    browser.click("form.filter button")
    browser.arrive("label=tabby")
    shown = browser.run(
        "return [...document.querySelectorAll('.card')].map((card) => card.innerText)"
    )
    if not shown or not all("tabby" in text for text in shown):
        raise SystemExit(f"The gallery shows {shown}")
    return 5


def _run_id() -> str:
    """Return the run of the DAG, as the store has it."""
    from airflow_imagetag.stores import SqlLabelStore

    [run_id] = [
        str(name)
        for frame in SqlLabelStore("warehouse", "product_labels").runs()
        for name in frame[frame["dag_id"] == DAG_ID]["run_id"]
    ]
    return run_id


def _walk_from_task(browser: Browser, url: str, run_id: str) -> int:
    """Open the tab of a task, and see its run."""
    browser.open(f"{url}/dags/{DAG_ID}/runs/{quote(run_id)}/tasks/label", 5)
    browser.click("//a[contains(@href, 'image-labels-of-task')]", "xpath")
    browser.enter("iframe")
    browser.arrive("/run?")
    shown = browser.run("return document.body.innerText")
    if run_id not in shown or "success" not in shown:
        address = browser.run("return location.href")
        raise SystemExit(f"The page of the task, {address}, shows {shown}")
    return 1


def _shoot(browser: Browser, name: str) -> None:
    (IMAGES / f"ui-{name}.png").write_bytes(browser.picture())


def _pages(browser: Browser, url: str) -> None:
    browser.open(f"{url}/plugin/image-labels", 8)
    _shoot(browser, "airflow")
    top = f"{url}/imagetag/products"
    for name in ("overview", "labels", "failures", "runs"):
        browser.open(f"{top}/{name}", 1)
        _shoot(browser, name)
    browser.open(f"{top}/gallery?label=tabby&max=0.3", 5)
    _shoot(browser, "gallery")
    found = re.search(r"image\?key=[0-9a-f]{64}", browser.run("return document.body.innerHTML"))
    if found is None:
        raise SystemExit("The gallery shows no image.")
    browser.open(f"{top}/{found[0]}", 3)
    _shoot(browser, "image")


if __name__ == "__main__":
    sys.exit(main())
