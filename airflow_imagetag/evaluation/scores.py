"""Private: precision, recall and F1 of labels, at every threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.frames import frame

if TYPE_CHECKING:
    import pandas as pd

    # Arrays of numpy: their stubs type few of the operations that are used here.
    Values = Any

_SCORES = {
    "precision": "float64",
    "recall": "float64",
    "f1": "float64",
    "support": "int64",
}
LABEL_SCORES: Mapping[str, str] = {"label": "string", "threshold": "float64", **_SCORES}
AVERAGES: Mapping[str, str] = {"threshold": "float64", **_SCORES}
LABEL_THRESHOLDS: Mapping[str, str] = {"label": "string", "min_probability": "float64", **_SCORES}
CONFUSIONS: Mapping[str, str] = {"label": "string", "given_label": "string", "images": "int64"}
UNREVIEWED: Mapping[str, str] = {
    "label": "string",
    "images": "int64",
    "max_probability": "float64",
}

PRECISION = NumberRule("a number above 0 and up to 1", above=0, maximum=1)
PROBABILITY = NumberRule("a number from 0 to 1", minimum=0, maximum=1)

NOT_GIVEN = -1.0
"""Stands for the probability of a label that the store does not have: below every threshold."""


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """How well the stored labels of some images agree with the truth.

    Where a ratio has the denominator 0, it is 0: precision where no image has the label from the
    threshold on, recall where the truth does not have it.

    :param api: the interface that gave the labels.
    :param thresholds: probabilities, in ascending order.
    :param image_keys: the images that are measured.
    :param missing_keys: images of the truth that are not: the store has no answer for them.
    :param pairs: a row for each image and label that truth or store has: ``image_key``, ``label``,
        ``probability``, missing where only the truth has the label, and ``is_true``.
    """

    api: str
    thresholds: tuple[float, ...]
    image_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]
    pairs: pd.DataFrame = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"Evaluation(api={self.api!r}, images={len(self.image_keys):,}, "
            f"missing={len(self.missing_keys):,})"
        )

    @cached_property
    def labels(self) -> pd.DataFrame:
        """A row for each label and threshold: precision, recall, f1, support.

        ``support`` is the number of images that really have the label.
        """
        import numpy as np

        names, hits, given, support = self._counts
        count = len(self.thresholds)
        scores = _scores(hits, given, support[:, None])
        columns = {name: values.ravel() for name, values in scores.items()}
        columns["support"] = np.repeat(support, count)
        return frame(
            {
                "label": np.repeat(names, count),
                "threshold": np.tile(self.thresholds, len(names)),
                **columns,
            },
            LABEL_SCORES,
        )

    @cached_property
    def micro(self) -> pd.DataFrame:
        """A row for each threshold, over all labels together: common labels weigh more."""
        import numpy as np

        _, hits, given, support = self._counts
        total = support.sum()
        scores = _scores(hits.sum(axis=0), given.sum(axis=0), total)
        return self._averages({**scores, "support": np.full(len(self.thresholds), total)})

    @cached_property
    def macro(self) -> pd.DataFrame:
        """A row for each threshold: the means over labels, each with the same weight."""
        import numpy as np

        _, hits, given, support = self._counts
        scores = _scores(hits, given, support[:, None])
        # Labels may be none at all.
        divisor = max(len(support), 1)
        means = {name: values.sum(axis=0) / divisor for name, values in scores.items()}
        return self._averages({**means, "support": np.full(len(self.thresholds), support.sum())})

    def threshold_for(self, precision: float) -> pd.DataFrame:
        """Return for each label the lowest probability from which on its precision is reached.

        A row has ``label``, ``min_probability`` and the scores from there on; a label that does not
        reach the precision at any probability has no ``min_probability``.

        :param precision: the wanted precision, above 0 and up to 1.
        :raises ConfigurationError: it is no such number.
        """
        wanted = PRECISION.require("precision", precision)
        steps = self._steps
        return self._chosen(steps[steps["precision"] >= wanted])

    def best_thresholds(self) -> pd.DataFrame:
        """Return for each label the probability from which on its F1 is the highest.

        The columns are those of ``threshold_for``. Of equal ones it is the lowest probability.
        """
        steps = self._steps
        highest = steps.groupby("label")["f1"].transform("max")
        return self._chosen(steps[(steps["f1"] >= highest) & (steps["f1"] > 0)])

    def label_map(
        self, precision: float, *, names: Mapping[str, str | None] | None = None
    ) -> pd.DataFrame:
        """Return a label map whose thresholds reach a precision: label, name, min_probability.

        ``.to_csv("labels.csv", index=False)`` writes the file that the operator's ``label_map``
        takes. Labels that do not reach the precision have no threshold.

        :param precision: the wanted precision, above 0 and up to 1.
        :param names: the map by which the stored labels were renamed, if any. Each of its labels
            gets the threshold of its name.
        :raises ConfigurationError: the precision is no such number.
        """
        found = self.threshold_for(precision)
        by_name = dict(zip(found["label"], found["min_probability"], strict=True))
        given = dict(names or {})
        rows = [*given.items()]
        rows += [(name, name) for name in by_name if name not in given.values()]
        return frame(
            {
                "label": [label for label, _ in rows],
                "name": [name for _, name in rows],
                "min_probability": [by_name.get(name or "") for _, name in rows],
            },
            {"label": "string", "name": "string", "min_probability": "float64"},
        )

    def confusions(self, threshold: float = 0.5, *, top: int = 20) -> pd.DataFrame:
        """Return the commonest confusions: a true label was missed, and a wrong one was given.

        A row has ``label``, ``given_label`` and the number of images, the commonest first.

        :param threshold: probability from which on a label counts as given.
        :param top: maximum number of rows.
        :raises ConfigurationError: the threshold is not a number from 0 to 1.
        """
        least = PROBABILITY.require("threshold", threshold)
        pairs = self.pairs
        is_given = pairs["probability"].fillna(NOT_GIVEN) >= least
        missed = pairs.loc[pairs["is_true"] & ~is_given, ["image_key", "label"]]
        wrong = pairs.loc[~pairs["is_true"] & is_given, ["image_key", "label"]]
        both = missed.merge(wrong.rename(columns={"label": "given_label"}), on="image_key")
        counted = both.groupby(["label", "given_label"], as_index=False).size()
        counted = counted.rename(columns={"size": "images"}).sort_values(
            ["images", "label", "given_label"], ascending=[False, True, True], kind="stable"
        )
        return frame({name: counted[name].head(top).to_numpy() for name in CONFUSIONS}, CONFUSIONS)

    @cached_property
    def unreviewed(self) -> pd.DataFrame:
        """Labels of the store that the truth never has: ``label``, ``images``, ``max_probability``.

        Perhaps they are wrong in every image, and perhaps no one has looked for them:
        ``reviewed()`` leaves them out.
        """
        pairs = self.pairs
        found = pairs[~pairs["label"].isin(pairs.loc[pairs["is_true"], "label"])]
        by_label = found.groupby("label", as_index=False).agg(
            images=("image_key", "size"), max_probability=("probability", "max")
        )
        ordered = by_label.sort_values(["images", "label"], ascending=[False, True])
        return frame({name: ordered[name].to_numpy() for name in UNREVIEWED}, UNREVIEWED)

    def reviewed(self) -> Evaluation:
        """Return the evaluation of those labels only that the truth has for some image."""
        pairs = self.pairs
        is_reviewed = pairs["label"].isin(pairs.loc[pairs["is_true"], "label"])
        return replace(self, pairs=pairs[is_reviewed])

    def compared_with(self, other: Evaluation) -> pd.DataFrame:
        """Return the scores of two interfaces side by side, over the images that both have.

        A row has ``label``, ``threshold``, the scores of this evaluation, those of the other as
        ``other_precision``, ``other_recall`` and ``other_f1``, the ``f1_difference`` (this less the
        other) and ``support``.

        :param other: an evaluation against the same truth.
        """
        common = set(self.image_keys) & set(other.image_keys)
        thresholds = self.thresholds
        mine, others = (
            replace(
                one,
                thresholds=thresholds,
                image_keys=tuple(key for key in one.image_keys if key in common),
                pairs=one.pairs[one.pairs["image_key"].isin(common)],
            ).labels
            for one in (self, other)
        )
        scores = ("precision", "recall", "f1", "support")
        both = mine.merge(
            others.rename(columns={name: f"other_{name}" for name in scores}),
            on=["label", "threshold"],
            how="outer",
        ).fillna({name: 0 for score in scores for name in (score, f"other_{score}")})
        both["f1_difference"] = both["f1"] - both["other_f1"]
        both["support"] = both[["support", "other_support"]].max(axis=1).astype("int64")
        ordered = both.sort_values(["label", "threshold"], kind="stable", ignore_index=True)
        columns = ["precision", "recall", "f1", "other_precision", "other_recall", "other_f1"]
        return ordered[["label", "threshold", *columns, "f1_difference", "support"]]

    def summary(self) -> dict[str, Any]:
        """Return the averages and the counts of images as JSON values."""
        names, _, _, _ = self._counts
        return {
            "api": self.api,
            "images": len(self.image_keys),
            "missing": len(self.missing_keys),
            "labels": len(names),
            "unreviewed_labels": len(self.unreviewed),
            "micro": _records(self.micro),
            "macro": _records(self.macro),
        }

    @cached_property
    def _counts(self) -> tuple[Values, Values, Values, Values]:
        """Names, and per label: images with it rightly and at all from each threshold on, support.

        One histogram of all pairs over labels and the intervals between thresholds.
        """
        import numpy as np
        import pandas as pd

        pairs = self.pairs
        codes, names = pd.factorize(pairs["label"], sort=True)
        probabilities = pairs["probability"].fillna(NOT_GIVEN).to_numpy("float64")
        is_true = pairs["is_true"].to_numpy("bool")
        width = len(self.thresholds) + 1
        intervals = np.searchsorted(self.thresholds, probabilities, side="right")
        cells = codes * width + intervals

        def from_each_threshold(chosen: Values) -> Values:
            counted = np.bincount(chosen, minlength=len(names) * width).reshape(-1, width)
            sums: Values = counted[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
            return sums

        support = np.bincount(codes[is_true], minlength=len(names))
        hits, given = from_each_threshold(cells[is_true]), from_each_threshold(cells)
        return np.asarray(names, dtype="object"), hits, given, support

    @cached_property
    def _steps(self) -> pd.DataFrame:
        """The scores of each label from each of its probabilities on, the highest first."""
        pairs = self.pairs
        by_label = pairs.groupby("label")["is_true"].sum()
        given = pairs.dropna(subset=["probability"])
        given = given.sort_values(["label", "probability"], ascending=[True, False])
        groups = given.groupby("label")
        steps = given[["label", "probability"]].assign(
            hits=groups["is_true"].cumsum().astype("int64"), given=groups.cumcount() + 1
        )
        # Of equal probabilities the last row counts them all.
        steps = steps.drop_duplicates(["label", "probability"], keep="last")
        support = steps["label"].map(by_label).to_numpy("int64")
        scores = _scores(steps["hits"].to_numpy(), steps["given"].to_numpy(), support)
        return steps.assign(**scores, support=support)

    def _chosen(self, steps: pd.DataFrame) -> pd.DataFrame:
        """Return the lowest of some steps of each label; labels without one are there, too."""
        import pandas as pd

        names, _, _, support = self._counts
        lowest = steps.drop_duplicates("label", keep="last").set_index("label")
        lowest = lowest.reindex(pd.Index(names, dtype="string"))
        scores = {name: lowest[name].to_numpy("float64") for name in ("precision", "recall", "f1")}
        least = lowest["probability"].to_numpy("float64")
        return frame(
            {"label": names, "min_probability": least, **scores, "support": support},
            LABEL_THRESHOLDS,
        )

    def _averages(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        return frame({"threshold": list(self.thresholds), **columns}, AVERAGES)


def _scores(hits: Values, given: Values, support: Values) -> dict[str, Values]:
    """Return precision, recall and F1; 0 where a denominator is 0."""
    return {
        "precision": _ratio(hits, given),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, given + support),
    }


def _ratio(numerators: Values, denominators: Values) -> Values:
    import numpy as np

    wide = np.broadcast_to(denominators, np.shape(numerators))
    out = np.zeros(np.shape(numerators))
    return np.divide(numerators, wide, out=out, where=wide > 0)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
