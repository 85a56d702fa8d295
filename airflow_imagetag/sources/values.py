"""Private: images as values: a list, a DataFrame, or the return value of an upstream task."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.descriptions import Packed, class_path, is_template
from airflow_imagetag.adapters.templating import IsData, Render, TemplatedValue
from airflow_imagetag.errors import ConfigurationError, DuplicateKeyError, ImageError
from airflow_imagetag.models import Entry, Image, RejectedImage, SkippedImage
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_local, is_storage, storage_of
from airflow_imagetag.sources.base import (
    DEFAULT_KEY_COLUMN,
    DEFAULT_URI_COLUMN,
    ImageSource,
    Trust,
)
from airflow_imagetag.sources.items import (
    CONTENT_COLUMN,
    VERSION_COLUMN,
    as_image,
    name_of,
)

if TYPE_CHECKING:
    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.selection.shards import Shard

_SHOWN_ITEMS = 10

MAX_NESTED_LISTS = 20
"""Maximum depth of lists inside the list."""

MAX_BUCKETS = 20
"""Maximum number of buckets of a list that lineage names."""


class ValueImages(ImageSource, TemplatedValue):
    """Images that are all in memory already.

    The wrapper keeps Airflow from rendering each of 100,000 strings as a Jinja template, and keeps
    rendered fields and the serialized DAG small and free of presigned queries.

    :param value: a list of URIs, dicts, ``Image`` objects or bytes; a DataFrame; or one of these
        alone. Lists inside the list, such as the outputs of mapped tasks, are taken as one.
    :param literal: the value stands in the DAG file, so the local files that it names may be
        read.
    """

    # The operator renders the texts that hold a template; Airflow would render every text.
    template_fields: ClassVar[Sequence[str]] = ()

    def __init__(self, value: Any, *, literal: bool = False) -> None:
        # Showing the images must not use up an iterator.
        self.value: Any = _kept(value)
        self._columns = (DEFAULT_KEY_COLUMN, DEFAULT_URI_COLUMN)
        # As it stands in the DAG file: a rendered template is data.
        self._written = self.value if literal else None

    def rendered(self, render: Render, is_data: IsData) -> ValueImages:
        """Return the images with their templates rendered; a text without a template is kept."""
        if is_data(self.value):
            # The values are no longer the author's own.
            return ValueImages(self.value)
        images = copy.copy(self)
        images.value = _render(self.value, render)
        return images

    def trust(self) -> Trust:
        """Return the local paths, file URIs and storages that stand in the DAG file as they are."""
        if self._written is None:
            return Trust()
        items = _flatten(self._written, *self._columns)
        uris = {uri for item in items if (uri := _uri_of(item, *self._columns))}
        return Trust(
            paths=frozenset(filter(is_local, uris)),
            storages=frozenset(storage_of(uri) for uri in uris if is_storage(uri)),
        )

    def dataset_refs(self) -> Sequence[DatasetRef]:
        """Return the buckets that the URIs of a list name, the first of them."""
        from airflow_imagetag.adapters.dataset_refs import FolderRef

        if not isinstance(self.value, (list, tuple)):
            # A frame, or the outputs of mapped tasks, which would be fetched.
            return ()
        uris = (_uri_of(item, *self._columns) for item in _flatten(self.value, *self._columns))
        storages = sorted({storage_of(uri) for uri in uris if uri and is_storage(uri)})
        return [FolderRef(f"{storage}/") for storage in storages[:MAX_BUCKETS]]

    def pack(self) -> Packed:
        """Return the images as plain values, with the signatures of their URLs.

        :raises ConfigurationError: an image is given as bytes.
        """
        packed: Packed = {"type": class_path(type(self))}
        if isinstance(self.value, str) and is_template(self.value):
            # It may become the text of a list, which is parsed after rendering.
            return packed | {"value": self.value}
        images = [entry for entry in self.entries() if isinstance(entry, Image)]
        if isinstance(self.value, Set):
            # The order of a set differs between processes, and each would make a new DAG version.
            images.sort(key=lambda image: image.key)
        if any(image.uri is None for image in images):
            raise ConfigurationError(
                "Images that are given as bytes cannot be handed to a trigger. Give their URIs, or "
                "a source."
            )
        # Airflow encrypts the values that it keeps for the trigger of a task.
        return packed | {"value": [image.as_dict() for image in images]}

    @property
    def is_in_memory(self) -> bool:
        """Whether all values are URIs or images with keys: the key of bytes is their digest."""
        return isinstance(self.value, (list, tuple)) and all(
            isinstance(item, (str, Image)) for item in self.value
        )

    def count(self) -> int:
        """Return the number of images, and 0 for values that have no length."""
        return len(self)

    def __len__(self) -> int:
        if _is_one(self.value):
            return 1
        if isinstance(self.value, (list, tuple)):
            return sum(len(item) if isinstance(item, (list, tuple)) else 1 for item in self.value)
        return len(self.value) if hasattr(self.value, "__len__") else 0

    def with_columns(self, key_column: str, uri_column: str) -> ValueImages:
        """Return the same images with other names of columns or dict keys."""
        images = copy.copy(self)
        images._columns = (key_column, uri_column)
        return images

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield every image once; a faulty entry becomes a rejected image.

        :param shard: only the images of this part.
        :param limit: has no effect here: all values are in memory.
        :raises ConfigurationError: the value as a whole is not a list of images.
        """
        del limit
        # Reading the outputs of a mapped upstream task fetches them, which must happen in the
        # thread in which Airflow runs the task; the engine reads entries in another thread.
        value = list(self.value) if _is_lazy(self.value) else self.value
        entries = _entries(value, *self._columns)
        if shard is None:
            return entries
        return (entry for entry in entries if shard.holds(entry.key))

    def serialize(self) -> Any:
        """Return the images as Airflow shows them; a long list is cut off."""
        if _is_frame(self.value):
            return repr(self)
        items = [self.value] if _is_one(self.value) else self.value
        if isinstance(items, Set):
            # The order of a set differs between processes, and each would make a new DAG version.
            items = sorted(items, key=str)
        shown = [_shown(item) for item in islice(items, _SHOWN_ITEMS)]
        return shown if len(self) <= _SHOWN_ITEMS else {"count": len(self), "first": shown}

    def __repr__(self) -> str:
        # Airflow 2 shows this text as the rendered field, so it must be stable and small.
        if _is_frame(self.value):
            columns = ", ".join(map(str, self.value.columns))
            return f"<DataFrame of {len(self)} images with columns {columns}>"
        return json.dumps(self.serialize(), ensure_ascii=False)


def _entries(value: Any, key_column: str, uri_column: str) -> Iterator[Entry]:
    seen: dict[str, Image] = {}
    items = _flatten(_decoded(value), key_column, uri_column)
    for position, item in enumerate(items):
        try:
            image = as_image(item, key_column, uri_column)
        except ImageError as error:
            yield RejectedImage(name_of(item, key_column, uri_column, position), None, error)
            continue
        first = seen.setdefault(image.key, image)
        if first is image:
            yield image
        elif first == image:
            yield SkippedImage(image.key)
        else:
            # With the version of the first: once that is stored, this entry is not new.
            twice = _duplicate(image.key)
            yield RejectedImage(image.key, image.display_uri, twice, version=first.version)


def _kept(value: Any) -> Any:
    """Return the value with each iterator as a list, which can be read more than once."""
    holds_iterators = isinstance(value, list) and any(isinstance(item, Iterator) for item in value)
    if holds_iterators:
        return [_read(item) if isinstance(item, Iterator) else item for item in value]
    return [_kept(item) for item in value] if isinstance(value, Iterator) else value


def _read(iterator: Iterator[Any]) -> list[Any]:
    """Return the items of an iterator in a list; an error of its own is the last of them."""
    items: list[Any] = []
    try:
        items.extend(map(_kept, iterator))
    # It is no image, and so becomes a rejected entry.
    except Exception as error:
        items.append(error)
    return items


def _is_one(value: Any) -> bool:
    return isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Image, os.PathLike)) or (
        not isinstance(value, Iterable)
    )


def _is_lazy(value: Any) -> bool:
    return (
        isinstance(value, Sequence) and not _is_one(value) and not isinstance(value, (list, tuple))
    )


def _is_frame(value: Any) -> bool:
    # By name: importing pandas takes longer than many tasks.
    return type(value).__name__ == "DataFrame" and hasattr(value, "itertuples")


def _decoded(value: Any) -> Any:
    if value is None:
        raise ConfigurationError(
            "images is None: the upstream task returned nothing. Return a list of images; an empty "
            "list is fine."
        )
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ConfigurationError(
                "images is the text of a list, not a list. Pass the upstream task's output as it "
                "is (images=upstream.output), set render_template_as_native_obj=True on the DAG, "
                "or end the template with '| tojson'."
            ) from None
    return value


def _flatten(
    value: Any,
    key_column: str = DEFAULT_KEY_COLUMN,
    uri_column: str = DEFAULT_URI_COLUMN,
    depth: int = 0,
) -> Iterator[Any]:
    if _is_one(value):
        yield value
    elif _is_frame(value):
        yield from _rows(value, key_column, uri_column)
    else:
        for item in value:
            if depth == MAX_NESTED_LISTS:
                yield item
                continue
            try:
                yield from _flatten(item, key_column, uri_column, depth + 1)
            except ConfigurationError:
                raise
            # A list that raises while it is read is no image, and so becomes a rejected entry.
            except Exception:
                yield item


def _rows(frame: Any, key_column: str, uri_column: str) -> Iterator[dict[str, Any]]:
    columns = list(frame.columns)
    if key_column not in columns or not {uri_column, CONTENT_COLUMN} & set(columns):
        raise ConfigurationError(
            f"The DataFrame needs the columns key_column={key_column!r} and "
            f"uri_column={uri_column!r}, and has {', '.join(map(repr, columns)) or 'none'}. Set "
            "key_column and uri_column to the names of yours."
        )
    names = dict.fromkeys((key_column, uri_column, CONTENT_COLUMN, VERSION_COLUMN))
    wanted = [name for name in names if name in columns]
    if repeated := [name for name in wanted if columns.count(name) > 1]:
        raise ConfigurationError(
            f"The DataFrame has more than one column {', '.join(map(repr, repeated))}. Rename or "
            "drop the others."
        )
    for row in zip(*(frame[name] for name in wanted), strict=True):
        yield dict(zip(wanted, row, strict=True))


def _render(value: Any, render: Render) -> Any:
    if isinstance(value, str):
        return render(value) if is_template(value) else value
    if isinstance(value, (list, tuple)):
        return [_render(item, render) for item in value]
    if isinstance(value, dict):
        return {name: _render(item, render) for name, item in value.items()}
    return value


def _uri_of(item: Any, key_column: str, uri_column: str) -> str | None:
    try:
        return as_image(item, key_column, uri_column).uri
    except ImageError:
        return None


def _duplicate(key: str) -> DuplicateKeyError:
    return DuplicateKeyError(
        f"The key {redact(key)!r} names more than one image of this run; the first was taken. "
        "Make the keys unique."
    )


def _shown(item: Any) -> Any:
    try:
        image = as_image(item)
    except ImageError:
        return f"<{type(item).__name__}>"
    return redact(image.key if image.uri is None else image.uri)
