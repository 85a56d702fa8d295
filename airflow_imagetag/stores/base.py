"""What every label store has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.descriptions import as_text, is_template
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.rules import Condition, Rule, StoredState

if TYPE_CHECKING:
    import pandas as pd
    from airflow.providers.common.compat.sdk import Asset

DEFAULT_FRAME_ROWS = 50_000


class OpenStore(ABC):
    """A store while a task uses it. Reading and writing block."""

    @abstractmethod
    def refresh(self) -> None:
        """Take note of what other writers have written since the store was opened."""

    @abstractmethod
    def release_connections(self) -> None:
        """Give connections back for a while; the next question opens them again."""

    @abstractmethod
    def check_writable(self, *, originals: bool = False) -> None:
        """Find out before anything is paid for that the store takes what will be written.

        :param originals: the labels may have been renamed, so their original names are kept.
        :raises ConfigurationError: it does not.
        """

    @abstractmethod
    def known(self, keys: Collection[str], api: str) -> Mapping[str, StoredState]:
        """Return what the store holds of the images with these keys.

        :param keys: keys of images, some thousands at most.
        :param api: interface that labelled them.
        """

    def pending(self, rule: Rule, api: str) -> Condition | None:
        """Return the condition that an image is new, for a statement in the store's own database.

        It takes the SQL expressions of key, version and URI (or None), as ``Rule.is_pending`` does
        their values. A store that is no SQL database has none.

        :param rule: what counts as new.
        :param api: interface that is to label the image.
        """
        del rule, api
        return None

    @abstractmethod
    def answers(
        self, content_sha256: Collection[str], api: str
    ) -> Mapping[str, TagResult | Failure]:
        """Return the answers that were paid for images with these bytes, by digest.

        Labels that were renamed have the service's own names in them.

        :param content_sha256: digests of the bytes, in hex, some hundreds at most.
        :param api: interface that answered.
        """

    @abstractmethod
    def write(self, outcomes: Sequence[TagResult | Failure], api: str) -> None:
        """Keep a batch, all of it or nothing; writing the same batch again changes nothing.

        :param outcomes: what came of each image; its labels replace earlier ones.
        :param api: interface that was asked.
        """

    @abstractmethod
    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield all labels as frames with the columns of a labels frame.

        :param frame_rows: rows of a frame, about.
        :param originals: with the column ``original_label``, missing where none was renamed.
        """


class LabelStore(ABC):
    """Where labels are kept. A store is a description: it connects to nothing until it is opened.

    Airflow renders the fields that ``template_fields`` names and shows what ``serialize`` returns.
    """

    template_fields: ClassVar[Sequence[str]]

    @abstractmethod
    def open(self, *, to_write: bool = True) -> AbstractContextManager[OpenStore]:
        """Return a context in which the store can be read and written, created if need be.

        :param to_write: False for one that is only asked what it holds: nothing is created, and a
            store that is not there yet holds nothing.
        :raises ConfigurationError: the place cannot be used, or holds something else.
        :raises StorageError: the place cannot be reached.
        """

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield all labels as frames, bounded in memory whatever the store holds.

        :param frame_rows: rows of a frame, about.
        :param originals: with the column ``original_label``: the service's own name of a label that
            was renamed, missing for others.
        """
        with self.open() as store:
            yield from store.labels(frame_rows=frame_rows, originals=originals)

    @abstractmethod
    def serialize(self) -> dict[str, Any]:
        """Return the description as Airflow shows it; the same for the same store."""

    @property
    @abstractmethod
    def asset_uri(self) -> str:
        """URI of the store as an asset: the same for the same place, without a secret."""

    @property
    def asset(self) -> Asset:
        """The store as an asset, for ``schedule=[store.asset]``; a dataset on Airflow 2.

        :raises ConfigurationError: a template in the store's fields is not rendered yet.
        """
        from airflow.providers.common.compat.sdk import Asset

        if self.is_template:
            raise ConfigurationError(
                f"{self!r} is known only when its templates are rendered, and an asset must be "
                "known when the DAG is parsed."
            )
        return Asset(self.asset_uri)

    @property
    def is_template(self) -> bool:
        """Whether a field holds a template."""
        return any(is_template(str(getattr(self, name))) for name in self.template_fields)

    def __repr__(self) -> str:
        # Airflow 2 keeps this text where Airflow 3 keeps what serialize() returns.
        return as_text(self)
