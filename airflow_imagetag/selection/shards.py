"""Even, stable and disjoint parts of a source, for tasks that share its work."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from airflow_imagetag.errors import ConfigurationError

_TEXT = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` parts of a source; an image belongs to the part that its key's hash names.

    :param index: from 0 to ``count - 1``.
    :param count: number of parts.
    """

    index: int
    count: int

    def holds(self, key: str) -> bool:
        """Tell whether the image with this key belongs to the part."""
        return key_hash(key) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def key_hash(key: str) -> int:
    """Return a number that spreads keys evenly, however alike they are."""
    digest = hashlib.md5(key.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4])


def shard_names(count: int) -> list[str]:
    """Return the names of ``count`` shards, which the operator's ``shard`` takes.

    :raises ConfigurationError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigurationError(f"A source has 1 shard or more, not {count}.")
    return [str(Shard(index, count)) for index in range(count)]


def parse_shard(text: str | None) -> Shard | None:
    """Return the shard that a name such as ``3/16`` stands for; None for None or an empty text.

    :raises ConfigurationError: the name is not the name of a shard.
    """
    if text is None or text in ("", "None"):
        return None
    match = _TEXT.fullmatch(text)
    shard = Shard(*map(int, match.groups())) if match else None
    if shard is None or shard.index >= shard.count:
        raise ConfigurationError(
            f"shard={text!r} is not the name of a shard: use one of source.shards(n), "
            "such as '0/16'."
        )
    return shard
