"""The operator in real DAG runs: its images, its XComs, its rendered fields."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from hosts import serialized, templates_rendered_of

from airflow_imagetag.frames import FAILURE_COLUMNS, LABEL_COLUMNS
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator

PRESIGNED = "X-Amz-Signature=0123456789abcdef&X-Amz-Credential=nobody"


def new_dag(**kwargs: Any) -> DAG:
    """Return a DAG without tasks and without a schedule."""
    return DAG("tested", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **kwargs)


def label_literals(images: Any, parameters: dict[str, Any], params: dict[str, Any]) -> DAG:
    """Label images of the DAG file; a downstream task looks at the frames."""

    @task(trigger_rule="all_done")
    def look(labels: Any, failures: Any) -> Any:
        return [
            {name: str(dtype) for name, dtype in frame.dtypes.items()}
            for frame in (labels, failures)
        ]

    with new_dag(params=params) as dag:
        label: Any = ImageTagOperator(task_id="label", images=images, **parameters)
        look(label.output, label.output["failures"])
    return dag


def label_upstream(images: Any, parameters: dict[str, Any]) -> DAG:
    """Label the images that a task returns."""

    @task
    def give() -> Any:
        return images

    with new_dag() as dag:
        ImageTagOperator(task_id="label", images=give(), **parameters)
    return dag


def label_text(template: str, images: Any, native: bool) -> DAG:
    """Label the images that a template makes of a task's return value."""

    @task
    def give() -> Any:
        return images

    with new_dag(render_template_as_native_obj=native) as dag:
        label = ImageTagOperator(task_id="label", images=template)
        give() >> label
    return dag


def label_mapped_literals(images: list[list[str]], params: dict[str, Any]) -> DAG:
    """Label each list in a task of its own."""
    with new_dag(params=params) as dag:
        ImageTagOperator.partial(task_id="label", top_k=1).expand(images=images)
    return dag


def label_mapped_upstream(images: list[list[str]]) -> DAG:
    """Label each list that a task returns in a task of its own."""

    @task
    def give() -> Any:
        return images

    with new_dag() as dag:
        ImageTagOperator.partial(task_id="label", top_k=1).expand(images=give())
    return dag


def label_reduced(images: list[list[str]]) -> DAG:
    """Label the results of several tasks in one task, and in several with one task behind."""

    @task
    def give(part: int) -> Any:
        return images[part]

    @task
    def count(frames: Any) -> Any:
        return sorted(key for frame in frames for key in frame["image_key"])

    with new_dag() as dag:
        given = give.expand(part=list(range(len(images))))
        ImageTagOperator(task_id="label", images=given, top_k=1)
        mapped = ImageTagOperator.partial(task_id="mapped", top_k=1).expand(images=given)
        count(mapped.output)
    return dag


def decorated(images: list[str]) -> DAG:
    """Label the results of decorated functions, in each way to call them."""
    with new_dag(params={"end": "2"}) as dag:

        @task.image_tag(top_k=1)
        def plain() -> Any:
            return images

        @task.image_tag(top_k=1)
        def counted(count: int, *, start: int = 0) -> Any:
            return images[start:count]

        @task.image_tag(top_k=1)
        def templated(end: str, params: dict[str, Any] | None = None) -> Any:
            assert params
            assert end == params["end"]
            return images[: int(end)]

        @task.image_tag(top_k=1)
        def mapped(start: int) -> Any:
            return images[start : start + 2]

        plain()
        counted(3, start=1)
        templated("{{ params.end }}")
        mapped.expand(start=[0, 2])
    return dag


def decorated_with(value: Any, parameters: dict[str, Any]) -> DAG:
    """Label the result of a decorated function."""
    with new_dag() as dag:

        @task.image_tag(**parameters)
        def label() -> Any:
            return value

        label()
    return dag


def keys(frame: Any) -> list[str]:
    """Return the key of each image once."""
    return sorted(set(frame["image_key"]))


def as_frame(urls: list[str], key: str, uri: str) -> Any:
    """Return a DataFrame of images with its columns named as told, and one column more."""
    import pandas as pd

    return pd.DataFrame({key: [f"k{n}" for n in range(len(urls))], uri: urls, "width": 640})


KINDS = ("urls", "dicts", "images", "bytes", "frame", "frame with other columns", "mixture")


@pytest.fixture
def kinds(
    image_urls: list[str], photographs: list[bytes]
) -> dict[str, tuple[Any, dict[str, Any], Any]]:
    """Give images of each kind, the parameters that they need, and the keys that are expected."""
    urls = image_urls[:3]
    named = ["k0", "k1", "k2"]
    columns = {"key_column": "id", "uri_column": "image url"}
    return {
        "urls": (urls, {}, urls),
        "dicts": (
            [{"image_key": k, "image_uri": u} for k, u in zip(named, urls, strict=True)],
            {},
            named,
        ),
        "images": ([Image(k, u) for k, u in zip(named, urls, strict=True)], {}, named),
        "bytes": (photographs[:3], {}, None),
        "frame": (as_frame(urls, "image_key", "image_uri"), {}, named),
        "frame with other columns": (as_frame(urls, "id", "image url"), columns, named),
        "mixture": (
            [urls[0], {"image_key": "k1", "image_uri": urls[1]}, Image("k2", urls[2])],
            {},
            None,
        ),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_labels_images_of_every_kind_that_stand_in_the_dag_file(kind, kinds, run_dag, emulator):
    """Each image, of any kind, is labelled once and named by its key."""
    images, parameters, expected = kinds[kind]
    run = run_dag(label_literals, images, parameters, {})
    assert run.state == "success", run.log
    found = keys(run.xcom("label"))
    assert len(found) == 3
    assert expected is None or found == expected
    assert emulator.stats.billed == 3


# Airflow's XComs take no bytes, and an Image only where [core] allowed_deserialization_classes
# names its class, as the settings of these tests do.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_labels_images_of_every_kind_from_an_upstream_task(kind, kinds, run_dag, emulator):
    """The operator takes the output of an upstream task through Airflow's own XComs."""
    images, parameters, expected = kinds[kind]
    run = run_dag(label_upstream, images, parameters)
    assert run.state == "success", run.log
    found = keys(run.xcom("label"))
    assert len(found) == 3
    assert expected is None or found == expected
    assert emulator.stats.billed == 3


@pytest.mark.parametrize("count", [3, 0])
def test_frames_arrive_downstream_with_their_types(count, run_dag, image_urls):
    """A downstream task gets both frames with every column and type, also when they are empty."""
    run = run_dag(label_literals, image_urls[:count], {}, {})
    assert run.xcom("look") == [dict(LABEL_COLUMNS), dict(FAILURE_COLUMNS)], run.log
    assert len(set(run.xcom("label")["image_key"])) == count


def test_frames_arrive_downstream_with_their_types_when_all_failed(run_dag):
    """Empty labels, and the failures, keep their types."""
    run = run_dag(label_literals, [b"no image", None, ""], {"max_failure_ratio": 1}, {})
    assert run.xcom("look") == [dict(LABEL_COLUMNS), dict(FAILURE_COLUMNS)], run.log
    failures = run.xcom("label", "failures")
    errors = ["ImageDecodeError", "InvalidImageError", "InvalidImageError"]
    assert sorted(failures["error"]) == errors


def test_summary_counts_images_and_calls(run_dag, image_urls):
    """The summary of a green run counts seen, tagged, reused, failed, skipped and calls."""
    images = [*image_urls[:3], image_urls[0], b"no image"]
    run = run_dag(label_literals, images, {"max_failure_ratio": 0.5}, {})
    assert run.state == "success", run.log
    summary = run.xcom("label", "summary")
    wanted = {"seen": 5, "tagged": 3, "failed": 1, "skipped": 1, "calls": 4, "retries": 0}
    assert {name: summary[name] for name in wanted} == wanted
    assert summary["store"] is None
    assert summary["elapsed_seconds"] > 0


@pytest.mark.parametrize(("ratio", "state"), [(0.25, "success"), (0.2, "failed")])
def test_failure_ratio_decides_and_outputs_are_there_either_way(ratio, state, run_dag, image_urls):
    """A share of failures over the limit fails the task, after labels, failures and summary."""
    images = [*image_urls[:3], {"image_key": "broken", "content": b"no image"}]
    fields = {"max_failure_ratio": ratio, "min_failures": 1}
    run = run_dag(label_literals, images, fields, {})
    assert run.states["label", -1] == state, run.log
    assert keys(run.xcom("label")) == sorted(image_urls[:3])
    failures = run.xcom("label", "failures")
    assert list(failures["image_key"]) == ["broken"]
    assert list(failures["code"]) == ["-1102"]
    assert run.xcom("label", "summary")["failed"] == 1
    assert ("TooManyFailuresError" in run.log) is (state == "failed")


def test_least_probability_and_most_labels_bound_the_labels(run_dag, image_urls):
    """``min_probability`` and ``top_k`` leave out labels, and ranks count from one."""
    everything = run_dag(label_literals, image_urls[:5], {}, {}).xcom("label")
    some = run_dag(label_literals, image_urls[:5], {"min_probability": 0.5, "top_k": 2}, {}).xcom(
        "label"
    )
    assert some["probability"].min() >= 0.5
    assert set(some["rank"]) <= {1, 2}
    likely = everything[(everything["probability"] >= 0.5) & (everything["rank"] <= 2)]
    pairs = [set(zip(frame["image_key"], frame["label"], strict=True)) for frame in (some, likely)]
    assert pairs[0] == pairs[1]
    assert len(everything) > len(some)


def test_most_images_bound_the_run(run_dag, image_urls, emulator):
    """``max_images`` images are labelled and the rest is left alone."""
    run = run_dag(label_literals, image_urls[:5], {"max_images": 2}, {})
    assert keys(run.xcom("label")) == image_urls[:2]
    assert emulator.stats.requests == 2


def test_parameters_come_from_templates(run_dag, image_urls, emulator):
    """Every number may be a template, whose text is read as a number."""
    parameters = {
        "max_images": "{{ params.n }}",
        "top_k": "{{ params.k }}",
        "min_probability": "{{ params.p }}",
        "max_failure_ratio": "{{ params.p }}",
        "max_in_flight": "{{ params.n }}",
        "requests_per_second": "{{ params.none }}",
        "imagetag_conn_id": "imagetag_{{ params.conn }}",
    }
    params = {"n": 2, "k": 1, "p": 0.25, "none": None, "conn": "default"}
    run = run_dag(label_literals, image_urls[:5], parameters, params)
    assert run.state == "success", run.log
    assert list(run.xcom("label")["rank"]) == [1, 1]
    assert emulator.stats.max_in_flight <= 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_images", 0),
        ("top_k", "many"),
        ("top_k", True),
        ("min_probability", 1.5),
        ("max_failure_ratio", "-0.1"),
        ("max_in_flight", 1.5),
        ("requests_per_second", "{{ params.zero }}"),
        ("images", None),
        ("images", "[not a list"),
    ],
)
def test_wrong_parameter_is_named_and_nothing_is_sent(name, value, run_dag, image_urls, emulator):
    """A parameter out of range ends the task with a ConfigurationError that names it."""
    parameters = {} if name == "images" else {name: value}
    images = value if name == "images" else image_urls[:2]
    run = run_dag(label_literals, images, parameters, {"zero": 0})
    assert run.states["label", -1] == "failed"
    assert f"ConfigurationError: {name} " in run.log
    assert emulator.stats.requests == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_local_files_are_read_if_the_dag_names_them(allowed, run_dag, photographs, tmp_path):
    """The DAG's author may name a file outside the allowed folders, and its data may not."""
    path = tmp_path / "photograph.jpg"
    path.write_bytes(photographs[0])
    images = [{"id": "one", "path": str(path)}]
    parameters = {"key_column": "id", "uri_column": "path", "max_failure_ratio": 1}
    if allowed:
        run = run_dag(label_literals, images, parameters, {})
    else:
        run = run_dag(label_upstream, images, parameters)
    assert run.states["label", -1] == "success", run.log
    assert keys(run.xcom("label")) == (["one"] if allowed else [])
    failures = list(run.xcom("label", "failures")["error"])
    assert failures == ([] if allowed else ["ImageNotAllowedError"])


def test_wrong_columns_are_named(run_dag, image_urls):
    """A frame without the key column ends the task with the columns that it has."""
    run = run_dag(label_literals, as_frame(image_urls[:2], "id", "url"), {}, {})
    assert run.states["label", -1] == "failed"
    assert "ConfigurationError: The DataFrame needs the columns key_column='image_key'" in run.log
    assert "'id', 'url', 'width'" in run.log


def test_templates_in_a_literal_list_are_rendered(run_dag, image_urls):
    """A URI that stands in the DAG file may hold a template, alone or in a dict."""
    base = image_urls[0].removesuffix("0.jpg")
    images = [
        base + "{{ params.n }}.jpg?day={{ ds }}",
        {"image_key": "key {{ params.n }}", "image_uri": base + "1.jpg"},
        image_urls[2],
    ]
    run = run_dag(label_literals, images, {}, {"n": 5})
    assert run.state == "success", run.log
    found = keys(run.xcom("label"))
    assert set(found) >= {image_urls[2], "key 5"}
    [dated] = [key for key in found if "day=" in key]
    assert dated.startswith(base + "5.jpg?day=20")


def count_templates(images: list[str]) -> tuple[int, int, str]:
    """Render an operator's fields; return Jinja's templates, the images, and their description."""
    with new_dag():
        label = ImageTagOperator(task_id="label", images=images)
    count = templates_rendered_of(label)
    return count, len(label.images), json.dumps(label.images.serialize())


def test_literal_texts_without_template_are_not_rendered(airflow_host):
    """Of 100,000 texts, Jinja gets the two that hold a template."""
    images = [f"s3://bucket/{number}.jpg" for number in range(100_000)]
    plain, _, _ = airflow_host.call(count_templates, [])
    images[0] = images[70_000] = "s3://bucket/{{ ds }}/x.jpg"
    count, length, shown = airflow_host.call(count_templates, images)
    assert count - plain == 2
    assert length == 100_000
    assert "s3://bucket/2026-01-02/x.jpg" in shown


def test_rendered_fields_are_small_and_hold_no_signature(run_dag, image_urls):
    """The rendered field of many presigned URLs is short and holds no signature."""
    images = [f"{url}?n={n}&{PRESIGNED}" for n in range(40) for url in image_urls]
    run = run_dag(label_literals, images, {"max_images": 3, "max_failure_ratio": 1}, {})
    assert run.states["label", -1] == "success", run.log
    shown = json.dumps(run.rendered["label", -1]["images"])
    assert image_urls[0] in shown
    assert "2000" in shown
    assert len(shown) < 2000
    for text in (
        shown,
        run.log,
        run.xcom("label").to_csv(),
        json.dumps(run.xcom("label", "summary")),
    ):
        assert "0123456789abcdef" not in text
        assert "X-Amz" not in text


def test_rendered_fields_hold_no_image_bytes(run_dag, photographs):
    """The rendered field of images given as bytes does not hold the bytes."""
    run = run_dag(label_literals, photographs[:3], {}, {})
    assert run.states["label", -1] == "success", run.log
    assert len(json.dumps(run.rendered["label", -1])) < 1000


def serialized_dags() -> str:
    """Return the serialization of a DAG whose operator holds images of every kind."""
    images = [
        "s3://bucket/{{ ds }}/a.jpg",
        {"image_key": "b", "image_uri": f"https://example.com/b.jpg?{PRESIGNED}", "width": 3},
        Image("c", "s3://bucket/c.jpg"),
        Path("/data/d.jpg"),
        b"bytes",
    ]
    with new_dag() as dag:
        ImageTagOperator(task_id="list", images=images)
        ImageTagOperator(task_id="many", images=[f"s3://b/{n}.jpg" for n in range(100_000)])
        ImageTagOperator(
            task_id="frame", images=as_frame(["s3://b/1.jpg"], "image_key", "image_uri")
        )
        ImageTagOperator(task_id="set", images={"s3://b/1.jpg", "s3://b/2.jpg", "s3://b/3.jpg"})
        upstream = ImageTagOperator(task_id="upstream", images="{{ params.images }}")
        ImageTagOperator(task_id="xcom", images=upstream.output)
        ImageTagOperator.partial(task_id="mapped").expand(
            images=[["s3://b/1.jpg"], ["s3://b/2.jpg"]]
        )
    return serialized(dag)


def test_two_parses_in_two_processes_serialize_alike(airflow_host):
    """The serialized DAG is the same text under different hash seeds, small and without secrets."""
    text = airflow_host.serialized(__file__)
    assert len(text) < 50_000
    assert "0123456789abcdef" not in text


def test_template_text_from_an_upstream_task_is_not_run(run_dag, image_urls):
    """A URI of an upstream task that looks like a template is data, and stays as it is."""
    image = image_urls[0] + "?x={{7*7}}"
    run = run_dag(label_upstream, [image], {})
    assert run.state == "success", run.log
    assert keys(run.xcom("label")) == [image]


def label_mapped_mixture(images: list[list[str]]) -> DAG:
    """Label the result of each of several tasks in a task of its own."""

    @task
    def give(part: int) -> Any:
        return images[part]

    with new_dag() as dag:
        parts = [give.override(task_id=f"give_{n}")(n) for n in range(len(images))]
        ImageTagOperator.partial(task_id="label", top_k=1).expand(images=parts)
    return dag


@pytest.mark.parametrize("builder", [label_mapped_upstream, label_mapped_mixture, label_reduced])
def test_template_text_from_a_mapped_upstream_task_is_not_run(builder, run_dag, image_urls):
    """Dynamic task mapping does not run a template in a URI either."""
    images = [[image_urls[0] + "?x={{7*7}}"], [image_urls[1] + "?x={%raw%}1{%endraw%}"]]
    run = run_dag(builder, images)
    assert run.state == "success", run.log
    expected = sorted(image for part in images for image in part)
    found = [
        value
        for (task_id, _, key), value in run.xcoms.items()
        if (key, task_id) == ("return_value", "label")
    ]
    assert sorted(key for frame in found for key in frame["image_key"]) == expected


def test_template_text_that_a_decorated_function_returns_is_not_run(run_dag, image_urls):
    """The result of a decorated function is data."""
    image = image_urls[0] + "?x={{7*7}}"
    run = run_dag(decorated_with, [image], {})
    assert run.state == "success", run.log
    assert keys(run.xcom("label")) == [image]


def test_template_text_in_a_rendered_value_is_not_run_again(run_dag, image_urls):
    """A rendered value is data, too."""
    run = run_dag(label_literals, [image_urls[0] + "?x={{ params.x }}"], {}, {"x": "{{7*7}}"})
    assert keys(run.xcom("label")) == [image_urls[0] + "?x={{7*7}}"], run.log


def test_maps_over_literal_lists(run_dag, image_urls):
    """Each literal list is a task of its own, and its templates are rendered."""
    base = image_urls[0].removesuffix("0.jpg")
    run = run_dag(label_mapped_literals, [image_urls[:2], [base + "{{ params.n }}.jpg"]], {"n": 7})
    assert run.state == "success", run.log
    assert keys(run.xcom("label", map_index=0)) == image_urls[:2]
    assert keys(run.xcom("label", map_index=1)) == [base + "7.jpg"]
    assert run.xcom("label", "summary", map_index=1)["tagged"] == 1


def test_maps_over_an_upstream_output(run_dag, image_urls):
    """Each list that a task returns is a task of its own."""
    run = run_dag(label_mapped_upstream, [image_urls[:2], image_urls[2:5]])
    assert run.state == "success", run.log
    assert keys(run.xcom("label", map_index=0)) == image_urls[:2]
    assert keys(run.xcom("label", map_index=1)) == image_urls[2:5]


def test_outputs_of_mapped_tasks_are_taken_together(run_dag, image_urls):
    """Lists of mapped tasks are one list of images, and frames of mapped tasks reach a reducer."""
    run = run_dag(label_reduced, [image_urls[:2], image_urls[2:5]])
    assert run.state == "success", run.log
    assert keys(run.xcom("label")) == image_urls[:5]
    assert run.xcom("count") == image_urls[:5]


def test_decorated_functions_in_every_form(run_dag, image_urls):
    """``@task.image_tag`` takes arguments, context, templates and mapping."""
    run = run_dag(decorated, image_urls[:4])
    assert run.state == "success", run.log
    assert keys(run.xcom("plain")) == image_urls[:4]
    assert keys(run.xcom("counted")) == image_urls[1:3]
    assert keys(run.xcom("templated")) == image_urls[:2]
    assert keys(run.xcom("mapped", map_index=0)) == image_urls[:2]
    assert keys(run.xcom("mapped", map_index=1)) == image_urls[2:4]
    assert run.xcom("plain", "summary")["tagged"] == 4


@pytest.mark.parametrize("kind", KINDS)
def test_decorated_function_returns_images_of_every_kind(kind, kinds, run_dag, emulator):
    """The result of a decorated function passes no XCom, so it may hold bytes and Images."""
    images, parameters, expected = kinds[kind]
    run = run_dag(decorated_with, images, parameters)
    assert run.state == "success", run.log
    found = keys(run.xcom("label"))
    assert len(found) == 3
    assert expected is None or found == expected
    assert emulator.stats.billed == 3


def test_a_decorated_function_that_returns_nothing_fails(run_dag):
    """None is no list of images, and the error says what to return."""
    run = run_dag(decorated_with, None, {})
    assert run.state == "failed"
    assert "ConfigurationError: images is None" in run.log


def test_decorated_function_shows_small_rendered_fields(run_dag, image_urls):
    """The images of a decorated function are shown short and without signatures."""
    run = run_dag(decorated_with, [f"{url}?{PRESIGNED}" for url in image_urls], {})
    assert run.state == "success", run.log
    shown = json.dumps(run.rendered["label", -1])
    assert len(shown) < 3000
    assert "X-Amz" not in shown + run.log


def test_native_template_gives_the_list(run_dag, image_urls):
    """With native rendering, a template that is a list is taken as the list."""
    run = run_dag(label_text, "{{ ti.xcom_pull('give') }}", image_urls[:3], True)
    assert run.state == "success", run.log
    assert keys(run.xcom("label")) == image_urls[:3]


def test_json_text_gives_the_list(run_dag, image_urls):
    """Without native rendering, the JSON text of a list is taken as the list."""
    images = [{"image_key": f"k{n}", "image_uri": url} for n, url in enumerate(image_urls[:3])]
    run = run_dag(label_text, "{{ ti.xcom_pull('give') | tojson }}", images, False)
    assert run.state == "success", run.log
    assert keys(run.xcom("label")) == ["k0", "k1", "k2"]


def test_text_of_a_python_list_is_refused(run_dag, image_urls):
    """The text that a template makes of a list is no path, and the error says what to do."""
    run = run_dag(label_text, "{{ ti.xcom_pull('give') }}", image_urls[:3], False)
    assert run.states["label", -1] == "failed"
    assert "ConfigurationError: images is the text of a list" in run.log
