"""Private: what stores in a folder of a storage have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from airflow_imagetag.safety.redaction import without_secrets
from airflow_imagetag.safety.uris import is_local, local_path, storage_of
from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, LabelStore

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.stores.parquet_runs import ParquetRuns

_KEPT = "/!\"$&'()*+,:;<=>@[\\]^`{|}"
"""Characters of a folder's name that its asset URI has as they are."""


@dataclass(repr=False)
class FolderLabelStore(LabelStore):
    """A store in a folder on any storage that ObjectStoragePath reaches.

    :param path: the folder. (templated)
    :param conn_id: the storage's connection, if the path names none. (templated)
    """

    path: str
    conn_id: str | None = None

    template_fields: ClassVar[Sequence[str]] = ("path", "conn_id")

    def __post_init__(self) -> None:
        # As the author of the DAG file wrote it.
        self._written = self.path

    def runs(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the runs that wrote to the store as frames, in the order of their starts.

        :param frame_rows: number of rows in a frame.
        """
        yield from self._runs().frames(frame_rows=frame_rows)

    def _runs(self) -> ParquetRuns:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.files import Files
        from airflow_imagetag.stores.parquet_runs import ParquetRuns

        check_folder(self.path, self._written)
        return ParquetRuns(Files(self.path, self.conn_id))

    @property
    def server_name(self) -> str:
        """The storage with its connection; all local folders count as one."""
        return "file://" if is_local(self.path) else storage_of(self.path, self.conn_id)

    def dataset_refs(self) -> Mapping[str, DatasetRef]:
        """Return the two folders."""
        from airflow_imagetag.adapters.dataset_refs import IMAGES, LABELS, FolderRef

        return {kind: FolderRef(f"{self.path.rstrip('/')}/{kind}") for kind in (LABELS, IMAGES)}

    @property
    def asset_uri(self) -> str:
        """The folder without the connection, such as ``s3://lake/labels``.

        What Airflow would read as a query or a fragment is percent-encoded, as are spaces and
        characters outside ASCII.
        """
        if is_local(self.path):
            return Path(local_path(self.path)).absolute().as_uri()
        scheme, _, place = without_secrets(self.path).partition("://")
        bucket, _, folder = place.partition("/")
        name = quote(folder.rstrip("/"), safe=_KEPT)
        return f"{scheme}://{bucket.rpartition('@')[2]}/{name}"
