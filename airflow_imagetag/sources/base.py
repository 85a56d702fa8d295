"""What every source of images has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from airflow_imagetag.adapters.descriptions import as_text, described
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.selection.rules import Condition, Window
from airflow_imagetag.selection.shards import Shard, shard_names


class ImageSource(ABC):
    """Where images are. A source is a description: it reads nothing until a task runs.

    Airflow renders the fields that ``template_fields`` names and shows what ``serialize`` returns.
    """

    template_fields: ClassVar[Sequence[str]]

    @property
    def is_in_memory(self) -> bool:
        """Whether ``entries`` gives each image within microseconds, without reading or hashing.

        Then no thread reads it: while an image is made, no call goes on.
        """
        return False

    @abstractmethod
    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield the images, reading page by page.

        :param shard: only the images of this part: those for whose key ``shard.holds(key)`` is
            true. What a source gives beside them is labelled, and paid, by several tasks.
        :param limit: no more than so many images will be taken.
        :raises ConfigurationError: the connection or a parameter is wrong.
        """

    def images(
        self,
        *,
        limit: int | None = None,
        window: Window | None = None,
        pending: Condition | None = None,
    ) -> Iterator[Image]:
        """Yield only the images that can be labelled, without their bytes where that saves work.

        :param limit: no more than so many images will be taken.
        :param window: only images that changed in this time.
        :param pending: a condition that the source's database applies, where it has one.
        :raises ConfigurationError: the source knows no times, or is wrong in itself.
        """
        del pending
        if window is not None:
            raise ConfigurationError(
                f"{type(self).__name__} knows no time at which an image changed, so modified_after "
                "and settle_seconds cannot be used with it."
            )
        return (entry for entry in self.entries(limit=limit) if isinstance(entry, Image))

    def shards(self, count: int) -> list[str]:
        """Return the names of ``count`` disjoint parts, for ``.expand(shard=source.shards(n))``.

        :raises ConfigurationError: ``count`` is below 1.
        """
        return shard_names(count)

    def serialize(self) -> dict[str, Any]:
        """Return the description as Airflow shows it; the same for the same source."""
        return described(self)

    def __repr__(self) -> str:
        # Airflow 2 keeps this text where Airflow 3 keeps what serialize() returns.
        return as_text(self)
