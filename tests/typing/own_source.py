"""A package that has a source of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores import SqlLabelStore


@dataclass
class ListedImages(ImageSource):
    """Images that a JSON file names by their keys."""

    path: str

    template_fields: ClassVar[Sequence[str]] = ("path",)

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Image]:
        """Yield the images."""
        listed: dict[str, str] = json.loads(Path(self.path).read_text())
        for key, uri in list(listed.items())[:limit]:
            if shard is None or shard.holds(key):
                yield Image(key, uri)


source = ListedImages("{{ ds }}.json")
ImageTagOperator.partial(task_id="label", images=source, store=SqlLabelStore("warehouse")).expand(
    shard=source.shards(2)
)
