"""Other names for labels: renamed, dropped and merged. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Label

OTHERS = "*"
"""The name of a map entry that holds for every label without an entry."""


class LabelMapping:
    """Renames, drops and merges labels.

    :param names: new names by label; None drops the label. ``"*"`` holds for the other labels.
    """

    def __init__(self, names: dict[str, str | None]) -> None:
        self._names = names
        self._keeps_others = OTHERS not in names
        self._others = names.get(OTHERS)

    def __call__(self, labels: Sequence[Label]) -> tuple[Label, ...]:
        """Return the labels under their new names, each name once for each scene.

        :param labels: the most probable first, so the first label of a name is kept.
        """
        kept: dict[tuple[str, str | None], Label] = {}
        for label in labels:
            name = self._name_of(label)
            if name is not None:
                kept.setdefault((name, label.scene), _named(label, name))
        return tuple(kept.values())

    def __str__(self) -> str:
        dropped = sum(name is None for name in self._names.values())
        return f"{len(self._names):,} labels, {dropped:,} of them dropped"

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
    """

    label: Any
    name: Any
    line: int | None = None


def label_mapping_of(entries: Iterable[MappingEntry], what: str) -> LabelMapping:
    """Return the mapping of some entries.

    :param what: names the map in messages: the parameter or its file.
    :raises ConfigurationError: an entry is not a text, or two entries rename a label differently.
    """
    names: dict[str, str | None] = {}
    lines: dict[str, int | None] = {}
    for entry in entries:
        label, name = _checked(entry, what)
        if names.setdefault(label, name) != name:
            raise ConfigurationError(
                f"{_place(what, entry.line)}: the label {label!r} has the name {name!r} here and "
                f"{names[label]!r} {_before(lines[label])}. Keep one of the two."
            )
        lines.setdefault(label, entry.line)
    return LabelMapping(names)


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
