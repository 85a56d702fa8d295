"""Labels of a store against the truth: scores, thresholds, confusions, two interfaces."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from databases import API, tagged

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.evaluation import Evaluation, TruthTable, evaluate
from airflow_imagetag.models import Label, TagResult
from airflow_imagetag.operators.evaluate import ImageTagEvaluateOperator
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore

OTHER_API = "DetectLabel"
SCORES = ["label", "threshold", "precision", "recall", "f1", "support"]
NAMES = tuple("abcdefgh")


def result(key: str, api: str = API, **labels: float) -> TagResult:
    """Return an image with labels and their probabilities, the most probable first."""
    ordered = sorted(labels.items(), key=lambda pair: -pair[1])
    made = tagged(key)
    found = tuple(Label(name, probability) for name, probability in ordered)
    return TagResult(key, made.image_uri, found, api, made.tagged_at)


def filled(folder: Path, *results: TagResult) -> ParquetLabelStore:
    """Write results to a new store."""
    store = ParquetLabelStore(str(folder / "lake"))
    for api in sorted({one.api for one in results}):
        with store.open(api) as opened:
            opened.write([one for one in results if one.api == api])
    return store


def truth(**labels: str) -> pd.DataFrame:
    """Return the labels of images, a letter each; a dot stands for none."""
    rows = [(key, None if name == "." else name) for key, names in labels.items() for name in names]
    return pd.DataFrame(rows, columns=["image_key", "label"])


def scores_at(found: Evaluation, label: str, threshold: float) -> tuple[float, float, int]:
    """Return precision, recall and support of a label at a threshold."""
    rows = found.labels[(found.labels.label == label) & (found.labels.threshold == threshold)]
    row = rows.iloc[0]
    return row.precision, row.recall, row.support


@pytest.fixture(scope="module")
def photographs_500() -> tuple[list[TagResult], pd.DataFrame]:
    """Make the labels of 500 images, some of two interfaces, and a truth that mostly agrees."""
    chance = random.Random(20)
    results: list[TagResult] = []
    rows: list[tuple[str, str | None]] = []
    for number in range(500):
        key = f"photo {number}"
        true = chance.sample(NAMES[:-1], chance.choice([0, 1, 1, 2, 3]))
        for api, skill in ((API, 0.85), (OTHER_API, 0.6)):
            labels = {
                name: round(chance.betavariate(5, 2) if name in true else chance.random() / 2, 2)
                for name in NAMES
                if chance.random() < (skill if name in true else 1 - skill)
            }
            results.append(result(key, api, **labels))
        rows += [(key, name) for name in true] or [(key, None)]
    return results, pd.DataFrame(rows, columns=["image_key", "label"])


@pytest.fixture(scope="module")
def evaluated_500(
    tmp_path_factory: pytest.TempPathFactory,
    photographs_500: tuple[list[TagResult], pd.DataFrame],
) -> dict[str, Evaluation]:
    """Measure the labels of both interfaces."""
    results, true = photographs_500
    store = filled(tmp_path_factory.mktemp("evaluated"), *results)
    return {api: evaluate(store, true, api=api) for api in (API, OTHER_API)}


def matrices(
    results: list[TagResult], true: pd.DataFrame, api: str, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth and the labels that are given, a row an image and a column a label."""
    pairs = set(zip(true.image_key, true.label, strict=True))
    chosen = [one for one in results if one.api == api]
    given = [
        {label.name for label in one.labels if label.probability >= threshold} for one in chosen
    ]
    return (
        np.array([[(one.image_key, name) in pairs for name in NAMES] for one in chosen]),
        np.array([[name in names for name in NAMES] for names in given]),
    )


@pytest.mark.parametrize("api", [API, OTHER_API])
def test_the_scores_are_those_of_scikit_learn(api, photographs_500, evaluated_500):
    """Each label at each threshold, micro and macro averages, over 500 images."""
    metrics = pytest.importorskip("sklearn.metrics")
    results, true = photographs_500
    found = evaluated_500[api]
    assert list(found.labels.columns) == SCORES
    assert len(found.labels) == len(NAMES) * len(found.thresholds)
    for threshold in found.thresholds:
        expected = matrices(results, true, api, threshold)
        rows = found.labels[found.labels.threshold == threshold].sort_values("label")
        assert list(rows.label) == list(NAMES)
        wanted = metrics.precision_recall_fscore_support(*expected, zero_division=0)
        np.testing.assert_allclose(rows[SCORES[2:]].to_numpy("float64").T, wanted)
        for average, table in (("micro", found.micro), ("macro", found.macro)):
            scores = table[table.threshold == threshold][SCORES[2:5]].to_numpy()[0]
            wanted = metrics.precision_recall_fscore_support(
                *expected, average=average, zero_division=0
            )
            np.testing.assert_allclose(scores, wanted[:3])


def test_the_threshold_for_a_precision_is_that_of_the_precision_recall_curve(
    photographs_500, evaluated_500
):
    """The lowest probability at which scikit-learn's curve of the label is at the precision."""
    metrics = pytest.importorskip("sklearn.metrics")
    results, true = photographs_500
    found = evaluated_500[API].threshold_for(0.9).set_index("label")
    truths, _ = matrices(results, true, API, 0)
    for column, name in enumerate(NAMES[:-1]):
        probabilities = [
            max((label.probability for label in one.labels if label.name == name), default=-1.0)
            for one in results
            if one.api == API
        ]
        precisions, recalls, thresholds = metrics.precision_recall_curve(
            truths[:, column], probabilities
        )
        good = (precisions[:-1] >= 0.9) & (thresholds >= 0)
        assert good.any()
        row = found.loc[name]
        assert row.min_probability == thresholds[good].min()
        assert row.recall == pytest.approx(recalls[:-1][good].max())
        assert row.precision >= 0.9
    # No image really has it.
    assert np.isnan(found.loc["h"].min_probability)


def test_images_without_an_answer_do_not_count(tmp_path: Path):
    """They are named as missing; an image with an answer without labels is measured."""
    store = filled(tmp_path, result("1", a=0.9), result("2"))
    found = evaluate(store, truth(**{"1": "a", "2": "a", "3": "a"}), thresholds=[0.5])
    assert (found.image_keys, found.missing_keys) == (("1", "2"), ("3",))
    assert scores_at(found, "a", 0.5) == (1.0, 0.5, 2)


def test_a_label_counts_from_its_probability_on(tmp_path: Path):
    """At the threshold itself it counts, and above it does not; thresholds are sorted."""
    store = filled(tmp_path, result("1", a=0.5))
    found = evaluate(store, truth(**{"1": "a"}), thresholds=[0.51, 0.5])
    assert found.thresholds == (0.5, 0.51)
    assert scores_at(found, "a", 0.5) == (1.0, 1.0, 1)
    assert scores_at(found, "a", 0.51) == (0.0, 0.0, 1)


def test_confusions_pair_what_was_missed_with_what_was_given(tmp_path: Path):
    """The commonest first; a label that is only missed or only wrong is no confusion."""
    results = [result("1", b=0.9), result("2", b=0.8), result("3", c=0.9), result("4", a=0.9)]
    found = evaluate(filled(tmp_path, *results), truth(**{"1": "a", "2": "a", "3": "b", "4": "ac"}))
    assert found.confusions().values.tolist() == [["a", "b", 2], ["b", "c", 1]]
    assert len(found.confusions(0.85, top=1)) == 1
    assert found.confusions(0.95).empty


def test_labels_that_nobody_has_looked_for_can_be_left_out(tmp_path: Path):
    """They count as wrong, are listed as unreviewed, and are not in the reviewed evaluation."""
    store = filled(tmp_path, result("1", a=0.9, z=0.4), result("2", a=0.9, z=0.6))
    found = evaluate(store, truth(**{"1": "a", "2": "a"}), thresholds=[0])
    assert found.unreviewed.values.tolist() == [["z", 2, 0.6]]
    assert (found.micro.precision[0], found.reviewed().micro.precision[0]) == (0.5, 1.0)
    assert found.summary()["unreviewed_labels"] == 1


def test_two_interfaces_are_compared_over_the_images_that_both_have(tmp_path: Path):
    """An image of one of them only does not count for either."""
    results = [result("1", a=0.9), result("2", a=0.9), result("1", OTHER_API, a=0.2, b=0.9)]
    store = filled(tmp_path, *results)
    true = truth(**{"1": "a", "2": "b"})
    with pytest.raises(ConfigurationError, match=r"DetectLabel, DetectLabelPro.*api="):
        evaluate(store, true)
    one, other = (evaluate(store, true, api=api, thresholds=[0, 0.5]) for api in (API, OTHER_API))
    compared = one.compared_with(other)
    columns = ["label", "threshold", "f1", "other_f1", "f1_difference", "support"]
    assert compared[columns].values.tolist() == [
        ["a", 0.0, 1.0, 1.0, 0.0, 1],
        ["a", 0.5, 1.0, 0.0, 1.0, 1],
        ["b", 0.0, 0.0, 0.0, 0.0, 0],
        ["b", 0.5, 0.0, 0.0, 0.0, 0],
    ]


def test_best_thresholds_have_the_highest_f1(tmp_path: Path):
    """Right ones from 0.6 on, a wrong one below."""
    store = filled(tmp_path, result("1", a=0.9), result("2", a=0.6), result("3", a=0.3))
    found = evaluate(store, truth(**{"1": "a", "2": "a", "3": "."})).best_thresholds()
    assert found.values.tolist() == [["a", 0.6, 1.0, 1.0, 1.0, 2]]


def test_a_recommended_label_map_is_one_that_the_operator_takes(tmp_path: Path):
    """Each label of a name gets the name's threshold; the file is read by the label map."""
    from airflow_imagetag.backends.parameter_files import PathPolicy
    from airflow_imagetag.operators.label_files import read_label_map

    store = filled(tmp_path, result("1", a=0.9, b=0.8), result("2", a=0.6, b=0.7))
    found = evaluate(store, truth(**{"1": "ab", "2": "b"}))
    made = found.label_map(0.9, names={"A": "a", "Z": None, "AA": "a"})
    path = tmp_path / "labels.csv"
    made.to_csv(path, index=False)
    mapping = read_label_map(str(path), PathPolicy((str(tmp_path),)))
    assert mapping is not None
    labels = [Label(name, probability) for name, probability in (("A", 0.95), ("Z", 1.0))]
    assert [label.name for label in mapping(labels)] == ["a"]
    assert mapping([Label("AA", 0.89), Label("b", 0.69)]) == ()
    assert [label.name for label in mapping([Label("AA", 0.9), Label("b", 0.7)])] == ["a", "b"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "rows", "table"])
def test_the_truth_may_be_a_file_rows_or_a_table(kind, tmp_path: Path, sqlite):
    """Each means the same; in a table and a frame keys may be numbers."""
    frame = truth(**{"1": "a", "02": "."})
    store = filled(tmp_path, result("1", a=0.9), result("02", a=0.4))
    given: Any = tmp_path / f"truth.{kind}"
    if kind == "csv":
        frame.to_csv(given, index=False)
        given = str(given)
    elif kind == "parquet":
        frame.to_parquet(given)
        given = str(given)
    elif kind == "rows":
        given = frame.to_dict("records")
    else:
        frame.rename(columns={"image_key": "id"}).to_sql("truth", sqlite.engine, index=False)
        given = TruthTable("warehouse", "truth", key="id")
    found = evaluate(store, given, thresholds=[0.0])
    assert scores_at(found, "a", 0.0) == (0.5, 1.0, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"image_key": "1"}], r"columns image_key and label.*label\."),
        (pd.DataFrame({"image_key": [], "label": []}), "no rows"),
        (pd.DataFrame({"image_key": [1.5], "label": ["a"]}), "fractions"),
        (pd.DataFrame({"image_key": [None], "label": ["a"]}), "1 rows without image_key"),
        (7, "not a int"),
        ("truth.txt", r"\.csv or \.parquet"),
        ("missing.csv", "does not exist"),
        (truth(**{"9": "a"}), "no labels of any of the 1 images.*'9'"),
    ],
)
def test_a_truth_that_cannot_be_used_is_refused(given, message, tmp_path: Path):
    """The error says what to change."""
    store = filled(tmp_path, result("1", a=0.9))
    with pytest.raises(ConfigurationError, match=message):
        evaluate(store, given)


@pytest.mark.parametrize("thresholds", [[], [2], "0.5", [float("nan")]])
def test_thresholds_are_probabilities(thresholds, tmp_path: Path):
    """An error says so."""
    store = filled(tmp_path, result("1", a=0.9))
    with pytest.raises(ConfigurationError, match="thresholds must be"):
        evaluate(store, truth(**{"1": "a"}), thresholds=thresholds)


def test_the_operator_pushes_what_a_dag_needs(tmp_path: Path, sqlite):
    """The labels frame is the result; averages, confusions and thresholds are XComs."""
    with SqlLabelStore("warehouse", "labels").open(API) as opened:
        opened.write([result("1", a=0.9), result("2", b=0.8)])
    pushed: dict[str, Any] = {}

    class TaskInstance:
        def xcom_push(self, key: str, value: Any) -> None:
            pushed[key] = value

    task = ImageTagEvaluateOperator(
        task_id="evaluate",
        store=SqlLabelStore("{{ conn }}", "labels"),
        truth=truth(**{"1": "a", "2": "a"}),
        min_precision="0.9",
    )
    context: Any = {"ti": TaskInstance(), "conn": "warehouse"}
    task.render_template_fields(context)
    found = task.execute(context)
    assert list(found.columns) == SCORES
    assert set(pushed) == {"summary", "confusions", "label_thresholds"}
    assert pushed["summary"]["images"] == 2
    assert pushed["confusions"].values.tolist() == [["a", "b", 1]]
    assert repr(task.truth) == "<DataFrame of 2 rows>"


def test_a_path_from_a_template_must_lie_in_an_allowed_folder(tmp_path: Path, monkeypatch):
    """As with a label map; a path that stands in the DAG file is read."""
    store = filled(tmp_path, result("1", a=0.9))
    path = tmp_path / "truth.csv"
    truth(**{"1": "a"}).to_csv(path, index=False)
    written = ImageTagEvaluateOperator(task_id="written", store=store, truth=str(path))
    written.render_template_fields({})
    assert len(written.execute({})) == 20
    templated = ImageTagEvaluateOperator(task_id="t", store=store, truth="{{ path }}")
    templated.render_template_fields({"path": str(path)})
    with pytest.raises(ConfigurationError, match="allowed_local_paths"):
        templated.execute({})
