"""A map of labels in real DAG runs: rendered, mapped, serialized, and kept in XComs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from buckets import Bucket
from clusters import AIRFLOW_2
from hosts import AirflowHost, Run, connection, serialized, templates_rendered_of

from airflow_imagetag.frames import LABEL_COLUMNS
from airflow_imagetag.operators.imagetag import ImageTagOperator

EVERY = {"*": "thing"}
MANY = {f"label {number}": f"name {number}" for number in range(5_000)}
TYPES = {**LABEL_COLUMNS, "original_label": "string"}


def new_dag(**params: Any) -> DAG:
    """Return a DAG without tasks and without a schedule."""
    return DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), params=params)


def label_by(images: list[str], label_map: Any, native: bool = False, **params: Any) -> DAG:
    """Label with a map of the DAG file; a downstream task looks at the frame."""

    @task
    def look(labels: Any) -> Any:
        return {name: str(dtype) for name, dtype in labels.dtypes.items()}

    with new_dag(**params) as dag:
        dag.render_template_as_native_obj = native
        look(ImageTagOperator(task_id="label", images=images, label_map=label_map).output)
    return dag


def label_by_params(images: list[str], label_map: Any, params: dict[str, Any]) -> DAG:
    """Label with a map whose path is a template."""
    return label_by(images, label_map, **params)


def label_by_native(images: list[str], names: dict[str, Any]) -> DAG:
    """Label with a map that is a dict of the params."""
    return label_by(images, "{{ params.names }}", native=True, names=names)


def label_by_upstream(images: list[str], label_map: Any) -> DAG:
    """Label with a map that a task returns."""

    @task
    def give() -> Any:
        return label_map

    with new_dag() as dag:
        ImageTagOperator(task_id="label", images=images, label_map=give())
    return dag


def label_by_literals(images: list[str], label_maps: list[Any]) -> DAG:
    """Label once with each map of the DAG file."""
    with new_dag(name="rendered") as dag:
        ImageTagOperator.partial(task_id="label", images=images).expand(label_map=label_maps)
    return dag


def label_by_mapped_upstream(images: list[str], label_maps: list[Any]) -> DAG:
    """Label once with each map that a task returns."""

    @task
    def give() -> Any:
        return label_maps

    with new_dag() as dag:
        ImageTagOperator.partial(task_id="label", images=images).expand(label_map=give())
    return dag


def label_parts(images: list[list[str]], label_map: Any) -> DAG:
    """Label each list in a task of its own, all with one map."""
    with new_dag(path="none") as dag:
        ImageTagOperator.partial(task_id="label", label_map=label_map).expand(images=images)
    return dag


def decorated_by(images: list[str], label_map: Any) -> DAG:
    """Label the result of a decorated function."""
    with new_dag() as dag:

        @task.image_tag(label_map=label_map)
        def label() -> Any:
            return images

        label()
    return dag


def names_in(frame: Any) -> set[str]:
    """Return the labels of a frame."""
    return set(frame["label"])


def test_a_frame_with_the_column_arrives_downstream(run_dag, image_urls):
    """The frame keeps its types on its way through Airflow's own XComs."""
    run = run_dag(label_by, image_urls[:3], EVERY)
    assert run.state == "success", run.log
    assert run.xcom("look") == TYPES
    frame = run.xcom("label")
    assert names_in(frame) == {"thing"}
    assert frame["original_label"].notna().all()
    assert frame["rank"].tolist() == [1, 1, 1]


def test_an_empty_frame_with_the_column_arrives_downstream(run_dag, image_urls):
    """The frame is empty where the map drops every label, and where there is no image."""
    for count in (2, 0):
        images = image_urls[:count]
        run = run_dag(label_by, images, {"*": None})
        assert run.xcom("look") == TYPES, run.log
        assert run.xcom("label", "summary")["tagged"] == len(images)


def test_names_in_a_dict_are_not_rendered(run_dag, image_urls):
    """A name that looks like a template is a name."""
    run = run_dag(label_by, image_urls[:1], {"*": "{{ 7 * 7 }}"})
    assert run.state == "success", run.log
    assert names_in(run.xcom("label")) == {"{{ 7 * 7 }}"}
    # On Airflow 2 it is a text.
    shown = run.rendered["label", -1]["label_map"]
    assert (json.loads(shown) if AIRFLOW_2 else shown) == {"*": "{{ 7 * 7 }}"}


def count_templates(label_map: Any) -> int:
    """Render an operator's fields; return how many templates Jinja was given."""
    with new_dag():
        label = ImageTagOperator(task_id="label", images=[], label_map=label_map)
    return templates_rendered_of(label)


def test_a_large_dict_costs_no_rendering(airflow_host):
    """Of 5,000 entries Jinja sees none; of a path it sees the one that holds a template."""
    plain = airflow_host.call(count_templates, None)
    assert airflow_host.call(count_templates, MANY) == plain
    assert airflow_host.call(count_templates, "s3://bucket/labels.csv") == plain
    assert airflow_host.call(count_templates, "s3://bucket/{{ ds }}.csv") == plain + 1


def test_a_large_dict_is_shown_short(run_dag, image_urls):
    """The rendered field has the beginning, the number, and a digest of all."""
    run = run_dag(label_by, image_urls[:1], {**MANY, **EVERY})
    assert run.state == "success", run.log
    shown = run.rendered["label", -1]["label_map"]
    shown = json.loads(shown) if AIRFLOW_2 else shown
    assert shown["count"] == len(MANY) + 1
    assert len(shown["first"]) == 10
    assert len(shown["sha256"]) == 64


@pytest.fixture
def run_in_bucket(airflow_host: AirflowHost, emulator: Any, bucket: Bucket) -> Callable[..., Run]:
    """Run a DAG in an Airflow with a bucket that has a map."""
    bucket.put("rendered.csv", b"label,name\n*,from a bucket\n")
    bucket.put("other.json", b'{"*": "from another"}')

    def run(build: Callable[..., Any], *args: Any) -> Run:
        return airflow_host.run(
            build,
            *args,
            AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator),
            AIRFLOW_CONN_AWS_DEFAULT=bucket.connection_json,
        )

    return run


def test_a_path_is_a_template(run_in_bucket, bucket, image_urls):
    """The path of a map is rendered, and shown rendered."""
    path = f"s3://aws_default@{bucket.name}/{{{{ params.name }}}}.csv"
    run = run_in_bucket(label_by_params, image_urls[:1], path, {"name": "rendered"})
    assert run.state == "success", run.log
    assert names_in(run.xcom("label")) == {"from a bucket"}
    assert run.rendered["label", -1]["label_map"] == path.replace("{{ params.name }}", "rendered")
    assert "1 labels, 0 of them dropped" in run.log


def test_a_template_may_be_the_map_itself(run_dag, image_urls):
    """A template may give JSON text, a dict with native rendering, or None."""
    params = {"names": EVERY, "none": None}
    run = run_dag(label_by_params, image_urls[:1], "{{ params.names | tojson }}", params)
    assert names_in(run.xcom("label")) == {"thing"}, run.log
    run = run_dag(label_by_native, image_urls[:1], EVERY)
    assert names_in(run.xcom("label")) == {"thing"}, run.log
    run = run_dag(label_by_params, image_urls[:1], "{{ params.none }}", params)
    assert run.xcom("look") == dict(LABEL_COLUMNS), run.log


def test_a_map_from_an_upstream_task(run_in_bucket, bucket, image_urls):
    """A task may return a dict, a path, or None."""
    for given, expected in (
        (EVERY, {"thing"}),
        (f"s3://aws_default@{bucket.name}/other.json", {"from another"}),
    ):
        run = run_in_bucket(label_by_upstream, image_urls[:1], given)
        assert run.state == "success", run.log
        assert names_in(run.xcom("label")) == expected
    run = run_in_bucket(label_by_upstream, image_urls[:1], {})
    assert list(run.xcom("label").columns) == list(TYPES), run.log
    run = run_in_bucket(label_by_upstream, image_urls[:1], None)
    assert list(run.xcom("label").columns) == list(LABEL_COLUMNS), run.log


def test_maps_over_literal_maps(run_in_bucket, bucket, image_urls, tmp_path):
    """Dicts, a local path of the DAG's author and a path with a template are a task each."""
    (tmp_path / "own.csv").write_text("label,name\n*,from a file\n")
    template = f"s3://aws_default@{bucket.name}/{{{{ params.name }}}}.csv"
    maps = [EVERY, str(tmp_path / "own.csv"), template, {"*": "{{ 7 * 7 }}"}]
    run = run_in_bucket(label_by_literals, image_urls[:1], maps)
    assert run.state == "success", run.log
    found = [names_in(run.xcom("label", map_index=index)) for index in range(len(maps))]
    assert found == [{"thing"}, {"from a file"}, {"from a bucket"}, {"{{ 7 * 7 }}"}]


def test_maps_over_maps_of_an_upstream_task(run_dag, image_urls, image_folder, tmp_path):
    """The maps are data: no template in them is run, and only an allowed local path is read."""
    (tmp_path / "labels.csv").write_text("label,name\n*,read\n")
    (image_folder / "labels.csv").write_text("label,name\n*,allowed\n")
    maps = [
        {"*": "{{ 7 * 7 }}"},
        f"{image_folder}/labels.csv",
        f"{tmp_path}/labels.csv",
        "x{{ 7 * 7 }}.csv",
    ]
    run = run_dag(label_by_mapped_upstream, image_urls[:1], maps)
    (image_folder / "labels.csv").unlink()
    assert names_in(run.xcom("label", map_index=0)) == {"{{ 7 * 7 }}"}, run.log
    assert names_in(run.xcom("label", map_index=1)) == {"allowed"}
    assert run.states["label", 2] == run.states["label", 3] == "failed"
    assert f"{tmp_path}/labels.csv is a file of the worker" in run.log
    assert "x{{ 7 * 7 }}.csv is a file of the worker" in run.log


@pytest.mark.parametrize("given", [EVERY, "file"])
def test_one_map_for_all_mapped_tasks(given, run_dag, image_urls, tmp_path):
    """A map in ``partial`` counts as the author's own, too."""
    (tmp_path / "own.csv").write_text("label,name\n*,thing\n")
    label_map = str(tmp_path / "own.csv") if given == "file" else given
    run = run_dag(label_parts, [image_urls[:2], image_urls[2:3]], label_map)
    assert run.state == "success", run.log
    for index in (0, 1):
        assert names_in(run.xcom("label", map_index=index)) == {"thing"}


def test_a_local_path_that_a_template_made_is_data(run_dag, image_urls, emulator, tmp_path):
    """The path of a rendered map must be in an allowed folder; no request is sent before."""
    (tmp_path / "own.csv").write_text("label,name\n*,thing\n")
    params = {"path": f"{tmp_path}/own.csv"}
    run = run_dag(label_by_params, image_urls[:1], "{{ params.path }}", params)
    assert run.states["label", -1] == "failed"
    assert "ConfigurationError: label_map" in run.log
    assert "[imagetag] allowed_local_paths" in run.log
    assert emulator.stats.requests == 0


def test_a_decorated_function_takes_a_map(run_dag, image_urls):
    """``@task.image_tag`` takes a map as the operator does."""
    run = run_dag(decorated_by, image_urls[:1], EVERY)
    assert names_in(run.xcom("label")) == {"thing"}, run.log


def serialized_dags() -> str:
    """Return the serializations of DAGs with maps of every kind."""
    of_a_set = dict.fromkeys({f"label {number}" for number in range(50)}, "x")
    path = "s3://bucket/{{ ds }}.csv?X-Amz-Signature=HushHush"
    dags = [label_by([], label_map) for label_map in (EVERY, MANY, of_a_set, path, {1: object()})]
    dags += [
        label_parts([["a"]], EVERY),
        label_by_literals([], [EVERY, path]),
        decorated_by([], MANY),
    ]
    return serialized(*dags)


def test_two_parses_in_two_processes_serialize_alike(airflow_host):
    """The serialized DAGs are the same text under different hash seeds, and small."""
    text = airflow_host.serialized(__file__)
    assert " object at 0x" not in text
    assert "name 4999" not in text
