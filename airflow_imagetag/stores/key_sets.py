"""Private: the keys of images that are deleted or marked, as digests on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.runtime.disk_set import DiskSet
from airflow_imagetag.stores.rows import key_digest


class KeySet:
    """Digests of keys, which may be more than memory holds.

    :param digests: the set, still empty.
    :param keys: keys of images.
    """

    def __init__(self, digests: DiskSet, keys: Iterable[str]) -> None:
        self._digests = digests
        self._digests.update(map(_digest, keys))

    def __len__(self) -> int:
        return len(self._digests)

    def chunks(self, size: int) -> Iterator[list[str]]:
        """Yield the digests in hex and in their order, at most ``size`` at a time."""
        iterator = iter(self._digests)
        while chunk := [digest.hex() for digest in islice(iterator, size)]:
            yield chunk

    def rows_in(
        self, rows: Collection[Mapping[str, Any]], api: str | None
    ) -> list[Mapping[str, Any]]:
        """Return the rows of images in the set.

        :param rows: rows of images or of labels.
        :param api: only those of this interface; None for all.
        """
        own = [row for row in rows if api in (None, row["api"])]
        values = {row["key_sha256"]: bytes.fromhex(row["key_sha256"]) for row in own}
        found = self._digests.intersection(set(values.values()))
        return [row for row in own if values[row["key_sha256"]] in found]


@contextmanager
def key_set(keys: Iterable[str]) -> Iterator[KeySet]:
    """Make a set of keys.

    :param keys: keys of images.
    :raises ConfigurationError: it is a single text.
    """
    if isinstance(keys, str):
        raise ConfigurationError("keys takes a list of keys, not a single text: write [key].")
    with DiskSet() as digests:
        yield KeySet(digests, keys)


def _digest(key: str) -> bytes:
    if not isinstance(key, str):
        raise ConfigurationError(
            f"keys holds {key!r}, a {type(key).__name__}. Give the texts of image_key."
        )
    return bytes.fromhex(key_digest(key))
