"""Private: compare the labels of a store with the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.evaluation.scores import Evaluation
from airflow_imagetag.evaluation.truth import read_truth
from airflow_imagetag.selection.rules import Status
from airflow_imagetag.stores.base import LabelStore, StoreMode, as_store

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.backends.parameter_files import PathPolicy

DEFAULT_THRESHOLDS = tuple(step / 20 for step in range(20))
"""From 0 to 0.95."""

THRESHOLD = NumberRule("a number from 0 to 1", minimum=0, maximum=1)

KEYS_AT_A_TIME = 1_000
"""Number of keys whose state a store is asked for at a time."""

_NAMED_KEYS = 3


def evaluate(
    store: LabelStore,
    truth: Any,
    *,
    api: str | None = None,
    thresholds: Sequence[float] | None = None,
) -> Evaluation:
    """Measure the labels of a store against the truth; makes no calls.

    An image counts if the truth names it and the store has an answer for it. A label of the store
    counts at a threshold if its probability is at least the threshold; with several scenes, its
    highest probability.

    :param store: where the labels are kept.
    :param truth: rows of ``image_key`` and ``label``, one for each label that an image really has;
        an image without any has one row without a label. A DataFrame, a list of dicts, a
        ``TruthTable``, or the path of a ``.csv`` or ``.parquet`` file on any storage.
    :param api: the interface whose labels are measured; None if the images have labels of one.
    :param thresholds: probabilities from 0 to 1; None for 0, 0.05 and so on to 0.95.
    :raises ConfigurationError: the truth or a threshold cannot be used, the images have labels of
        several interfaces, or the store has none of the images.
    :raises StorageError: the store, or the truth's table or file, cannot be reached.
    """
    return evaluated(store, truth, api=api, thresholds=thresholds)


def evaluated(
    store: LabelStore,
    truth: Any,
    *,
    api: str | None = None,
    thresholds: Sequence[float] | None = None,
    policy: PathPolicy | None = None,
) -> Evaluation:
    """Measure as ``evaluate`` does.

    :param policy: files that the path of the truth may name; None for any file.
    """
    checked = check_thresholds(thresholds)
    opened = as_store(store)
    if opened is None:
        raise ConfigurationError("evaluate needs a store: it measures labels that are stored.")
    true = read_truth(truth, policy)
    keys = true["image_key"].drop_duplicates()
    given = _given_labels(opened, keys, api)
    api = api or _only_api(given, keys)
    given = given[given["api"] == api]
    tagged = _tagged_keys(opened, api, keys)
    judged = keys[keys.isin(given["image_key"]) | keys.isin(tagged)]
    if judged.empty:
        raise ConfigurationError(
            f"The store has no answer of {api} for any of the {len(keys):,} images of the truth. "
            f"{_first_keys(keys)} Correct the column image_key, or label the images first."
        )
    true = true[true["image_key"].isin(judged)].dropna(subset=["label"])
    best = given.groupby(["image_key", "label"], as_index=False)["probability"].max()
    pairs = best.merge(true.assign(is_true=True), on=["image_key", "label"], how="outer")
    pairs["is_true"] = pairs["is_true"].eq(True)
    return Evaluation(
        api=api,
        thresholds=checked,
        image_keys=tuple(judged),
        missing_keys=tuple(keys[~keys.isin(judged)]),
        pairs=pairs,
    )


def check_thresholds(thresholds: Any) -> tuple[float, ...]:
    """Return the thresholds in ascending order, each once.

    :raises ConfigurationError: one is not a number from 0 to 1, or there are none.
    """
    if thresholds is None:
        return DEFAULT_THRESHOLDS
    if isinstance(thresholds, str) or not (given := list(thresholds)):
        raise ConfigurationError(
            f"thresholds must be a list of numbers from 0 to 1, not {thresholds!r}."
        )
    return tuple(sorted({THRESHOLD.require("thresholds", one) for one in given}))


def _given_labels(store: LabelStore, keys: pd.Series[str], api: str | None) -> pd.DataFrame:
    """Return the stored labels of some images, in memory only those."""
    import pandas as pd

    columns = ["image_key", "label", "probability", "api"]
    found = [pd.DataFrame({name: [] for name in columns})]
    for labels in store.labels():
        is_wanted = labels["image_key"].isin(keys)
        if api is not None:
            is_wanted &= labels["api"] == api
        if is_wanted.any():
            found.append(labels.loc[is_wanted, columns])
    given = pd.concat(found[1:] or found, ignore_index=True)
    return given.astype(
        {"image_key": "string", "label": "string", "probability": "float64", "api": "string"}
    )


def _only_api(given: pd.DataFrame, keys: pd.Series[str]) -> str:
    apis = sorted(given["api"].unique())
    if len(apis) > 1:
        raise ConfigurationError(
            f"The images of the truth have labels of several interfaces: {', '.join(apis)}. "
            "Name one with api=."
        )
    if not apis:
        raise ConfigurationError(
            f"The store has no labels of any of the {len(keys):,} images of the truth. "
            f"{_first_keys(keys)} Correct the column image_key, or label the images first."
        )
    return str(apis[0])


def _tagged_keys(store: LabelStore, api: str, keys: pd.Series[str]) -> set[str]:
    """Return the keys of images with an answer, which may hold no labels."""
    tagged: set[str] = set()
    left: Iterator[str] = iter(keys)
    with store.open(api, StoreMode.READ) as opened:
        while chunk := list(islice(left, KEYS_AT_A_TIME)):
            states = opened.known(chunk)
            tagged.update(key for key in chunk if _is_tagged(states.get(key)))
    return tagged


def _is_tagged(state: Any) -> bool:
    return state is not None and state.status is Status.TAGGED


def _first_keys(keys: pd.Series[str]) -> str:
    return f"Its first keys: {', '.join(map(repr, keys.head(_NAMED_KEYS)))}."
