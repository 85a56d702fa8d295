"""Other names for labels: renamed, dropped and merged, and thresholds of their own. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Label

OTHERS = "*"
"""The name of a map entry that holds for every label without an entry."""


THRESHOLD = NumberRule("a number from 0 to 1, or empty", minimum=0, maximum=1)


class LabelMapping:
    """Renames, drops and merges labels.

    :param names: new names by label; None drops the label. ``"*"`` holds for the other labels.
    :param thresholds: probabilities by label below which it is dropped; ``"*"`` as for names.
    """

    def __init__(
        self, names: dict[str, str | None], thresholds: Mapping[str, float] | None = None
    ) -> None:
        self._names = names
        self._thresholds = thresholds or {}
        self._keeps_others = OTHERS not in names
        self._others = names.get(OTHERS)

    def __call__(self, labels: Sequence[Label]) -> tuple[Label, ...]:
        """Return the labels under their new names, each name once for each scene.

        :param labels: the most probable first, so the first label of a name is kept.
        """
        kept: dict[tuple[str, str | None], Label] = {}
        for label in labels:
            name = self._name_of(label)
            if name is not None and self._is_probable(label):
                kept.setdefault((name, label.scene), _named(label, name))
        return tuple(kept.values())

    def __str__(self) -> str:
        dropped = sum(name is None for name in self._names.values())
        shown = f"{len(self._names):,} labels, {dropped:,} of them dropped"
        thresholds = len(self._thresholds)
        return f"{shown}, {thresholds:,} with a threshold" if thresholds else shown

    def _is_probable(self, label: Label) -> bool:
        # Most maps have no thresholds.
        if not self._thresholds:
            return True
        entry = label.name if label.name in self._names else OTHERS
        return label.probability >= self._thresholds.get(entry, 0.0)

    def _name_of(self, label: Label) -> str | None:
        otherwise = label.name if self._keeps_others else self._others
        return self._names.get(label.name, otherwise)


def _named(label: Label, name: str) -> Label:
    return label if name == label.name else replace(label, name=name, original=label.name)


class MappingEntry(NamedTuple):
    """One entry of a map as it was read.

    :param label: the service's name.
    :param name: the new name; None or empty drops the label.
    :param line: line of the file, if the map is a file with lines.
    :param min_probability: the label is dropped below it; None or empty for no threshold.
    """

    label: Any
    name: Any
    line: int | None = None
    min_probability: Any = None


def label_mapping_of(entries: Iterable[MappingEntry], what: str) -> LabelMapping:
    """Return the mapping of some entries.

    :param what: names the map in messages: the parameter or its file.
    :raises ConfigurationError: an entry is not a text, a threshold is no probability, or two
        entries treat a label differently.
    """
    names: dict[str, str | None] = {}
    lines: dict[str, int | None] = {}
    thresholds: dict[str, float | None] = {}
    for entry in entries:
        label, name = _checked(entry, what)
        threshold = _threshold(entry, name, what)
        read: list[tuple[dict[str, Any], Any, str]] = [
            (names, name, "name"),
            (thresholds, threshold, "threshold"),
        ]
        for values, value, kind in read:
            if values.setdefault(label, value) != value:
                raise ConfigurationError(
                    f"{_place(what, entry.line)}: the label {label!r} has the {kind} {value!r} "
                    f"here and {values[label]!r} {_before(lines[label])}. Keep one of the two."
                )
        lines.setdefault(label, entry.line)
    return LabelMapping(
        names, {label: value for label, value in thresholds.items() if value is not None}
    )


def _threshold(entry: MappingEntry, name: str | None, what: str) -> float | None:
    place = _place(what, entry.line)
    value = THRESHOLD.parse(f"{place}: min_probability", entry.min_probability)
    if value is not None and name is None:
        raise ConfigurationError(
            f"{place}: the label {entry.label!r} has a min_probability and no name, which drops "
            "it. Fill in its name, which may be the label itself, or empty min_probability."
        )
    return value


def _checked(entry: MappingEntry, what: str) -> tuple[str, str | None]:
    label = _text(entry.label, entry, what)
    if label is None:
        raise ConfigurationError(
            f"{_place(what, entry.line)}: the name {entry.name!r} has no label beside it. Fill in "
            "the label, or remove the entry."
        )
    return label, _text(entry.name, entry, what)


def _text(value: Any, entry: MappingEntry, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{_place(what, entry.line)}: label and name must be texts, or the name None to drop "
            f"the label, but {entry.label!r} has {entry.name!r}."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        # No store and no XCom can keep it, and the images would be paid for by then.
        raise ConfigurationError(
            f"{_place(what, entry.line)}: {value!r} holds half of a character. Correct it."
        ) from None
    return value.strip() or None


def _place(what: str, line: int | None) -> str:
    return what if line is None else f"{what}, line {line}"


def _before(line: int | None) -> str:
    return "before" if line is None else f"in line {line}"
