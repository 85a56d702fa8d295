"""The way from a task to the labels of its run, also where Airflow is served below a path."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import airflow
import pytest
from databases import Database, TaskInstance, tagged
from pictures import Page, write
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from web import application_of

from airflow_imagetag.links.imagetag import ImageLabelsLink
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.stores import SqlLabelStore

if airflow.__version__.startswith("2."):
    pytest.skip("Airflow 2 has no such pages", allow_module_level=True)

STORE = "products"
TASKS = [ImageTagOperator(task_id="x", images=[]), NewImagesSensor(task_id="x", images=[])]


def address_of(task: Any) -> str:
    """Return where the button of a task leads."""
    [link] = [found for found in task.operator_extra_links if found.name == "Image labels"]
    assert isinstance(link, ImageLabelsLink)
    return link.get_link(task, ti_key=TaskInstance())


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Airflow show a store."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__UI_STORES", f"{STORE} = warehouse:product_labels")


@pytest.mark.parametrize("task", TASKS, ids=["operator", "sensor"])
@pytest.mark.parametrize(
    "base", ["", "http://airflow.example", "https://host.example/team/airflow/"]
)
def test_operator_and_sensor_lead_to_the_page_of_their_run(shown, monkeypatch, task, base):
    """The address names the task, the run and the map index, below that of Airflow."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    assert address_of(task) == (
        f"{base.rstrip('/')}/imagetag/run?dag_id=catalogue"
        "&run_id=manual__2026-07-01T12%3A00%3A00%2B00%3A00&task_id=x&map_index=-1"
    )


@pytest.mark.parametrize("task", TASKS, ids=["operator", "sensor"])
def test_without_a_page_the_button_leads_nowhere(shown, monkeypatch, task):
    """Neither where no store is shown, nor in an Airflow that shows no pages of plugins."""
    monkeypatch.setattr("airflow_imagetag.links.imagetag.airflow_version", lambda: (3, 0))
    assert address_of(task) == ""
    monkeypatch.undo()
    monkeypatch.delenv("AIRFLOW__IMAGETAG__UI_STORES", raising=False)
    assert address_of(task) == ""


def mounted(application: Any, base: str) -> Any:
    """Mount the pages as Airflow does, which is served below the path of its own address."""
    return Starlette(routes=[Mount(f"{urlsplit(base).path.rstrip('/')}/imagetag", application)])


@pytest.mark.parametrize("base", ["http://host.example", "http://host.example/team/airflow"])
def test_the_link_of_a_task_shows_its_run(
    shown, monkeypatch, sqlite: Database, service, small_jpegs, base
):
    """With its numbers, and the way to its images and to no others."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    store = SqlLabelStore("warehouse", "product_labels")
    images = [
        {"image_key": f"k{n}", "content": content} for n, content in enumerate(small_jpegs(3))
    ]
    task = ImageTagOperator(task_id="x", images=images, store=store)
    task.execute({"ti": TaskInstance()})
    write(store, [tagged("earlier", "x")])
    address = address_of(task)
    with application_of({STORE: store}) as application:
        client = TestClient(mounted(application, base), base_url=base)
        page = client.get(address)
        assert page.status_code == 200
        assert TaskInstance.run_id in page.text
        assert "success" in page.text
        [images_of] = [a["href"] for a in Page(page.text).all("a") if "since=" in str(a["href"])]
        gallery = client.get(urljoin(address, str(images_of))).text
        assert all(f">k{number}</a>" in gallery for number in range(3))
        assert ">earlier</a>" not in gallery
        runs = f"{base}/imagetag/{STORE}/runs"
        [back] = [a["href"] for a in Page(client.get(runs).text).all("a") if a.get("target")]
        assert urljoin(runs, str(back)).startswith(f"{base}/dags/catalogue/runs/manual__2026")
        # As the tab of Airflow 3.1 has it: not encoded, and without an index.
        raw = f"{base}/imagetag/run?dag_id=catalogue&run_id={TaskInstance.run_id}&task_id=x"
        assert "success" in client.get(f"{raw}&map_index={{MAP_INDEX}}").text
        other = client.get(address.replace("task_id=x", "task_id=y")).text
        assert TaskInstance.run_id not in other
        assert "has a record of this task" in other


PAGES = ("overview", "gallery", "labels", "failures", "runs", "image", "thumbnail")


@pytest.mark.parametrize("base", ["http://host.example", "http://host.example/team/airflow"])
def test_every_address_of_the_pages_stays_below_the_path_of_airflow(sqlite, base):
    """From the first page on, all links, pictures, styles and forms lead to an answer there."""
    store = SqlLabelStore("warehouse", "product_labels")
    write(store, [tagged(f"a/{number} ?#&", "x & y") for number in range(60)])
    with application_of({STORE: store}) as application:
        client = TestClient(mounted(application, base), base_url=base)
        waiting = [
            f"{base}/imagetag/",
            f"{base}/imagetag/{STORE}",
            f"{base}/imagetag/nothing/at/all",
        ]
        reached: dict[str, int] = {}
        while waiting:
            address = waiting.pop()
            if address in reached:
                continue
            answer = client.get(address)
            reached[address] = answer.status_code
            # The address after redirects is what relative ones begin from.
            found = [urljoin(str(answer.url), link) for link in _links(answer.text)]
            assert all(link.startswith(f"{base}/imagetag/") for link in found), address
            # Not each image and filter: one of each kind of address.
            kinds = {_kind(link) for link in reached}
            waiting += {_kind(link): link for link in found if _kind(link) not in kinds}.values()
    top = f"{urlsplit(base).path}/imagetag/"
    paths = {urlsplit(link).path.removeprefix(top): code for link, code in reached.items()}
    assert {path: code for path, code in paths.items() if code != 200} == {"nothing/at/all": 404}
    assert set(paths) >= {f"{STORE}/{name}" for name in PAGES}
    assert set(paths) >= {"static/style.css", "static/page.js"}


def _links(text: str) -> list[str]:
    page = Page(text) if text.startswith("<!doctype") else Page("")
    given = [
        str(value).partition("#")[0]
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("href", "src", "action")
    ]
    return [link for link in given if link]


def _kind(link: str) -> tuple[str, frozenset[str]]:
    parts = urlsplit(link)
    return parts.path, frozenset(part.partition("=")[0] for part in parts.query.split("&"))
