"""Private: deletes images from the checkpoints of runs without a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from airflow_imagetag.backends.configuration import checkpoint_path
from airflow_imagetag.backends.places import place_of
from airflow_imagetag.backends.storage_faults import storage_error
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_local, local_path
from airflow_imagetag.stores.key_sets import KeySet

log = logging.getLogger(__name__)


def delete_from_checkpoints(keys: KeySet, api: str | None) -> int:
    """Delete images from all checkpoints below ``[imagetag] checkpoint_path``.

    :param keys: keys of images.
    :param api: only images of this interface; None for all.
    :return: the number of deleted rows of images.
    :raises ConfigurationError: the folder cannot be used.
    :raises StoreError: a checkpoint could not be changed.
    """
    folder = checkpoint_path()
    if folder is None or not len(keys):
        return 0
    # Few deployments have checkpoints, and a database needs no pyarrow.
    from airflow_imagetag.stores.parquet_dataset import open_dataset
    from airflow_imagetag.stores.parquet_removal import ParquetRemoval

    deleted = 0
    for dataset in _datasets(folder):
        with open_dataset(dataset, None) as opened:
            deleted += ParquetRemoval(opened, api).delete(keys)
    if deleted:
        log.info("Deleted %d images from checkpoints below %s", deleted, redact(folder))
    return deleted


def _datasets(folder: str) -> Iterator[str]:
    """Yield the folders of the datasets below a folder.

    A checkpoint has the folder ``dag/run/task/map index``, with its files in ``images/``.
    """
    # In a file URI, the escapes of these names would be undone.
    root = (local_path(folder) if is_local(folder) else folder).rstrip("/")
    place = place_of(root)
    base = place.path.rstrip("/") + "/"
    try:
        # A remembered listing lacks the files of other workers.
        place.file_system.invalidate_cache()
        paths = place.file_system.find(base.rstrip("/"))
    except FileNotFoundError:
        return
    # Each storage's library has an error tree of its own.
    except Exception as error:
        raise storage_error(error, f"{redact(folder)} cannot be listed") from None
    names = {path.removeprefix(base) for path in paths}
    found = {name.rpartition("/images/")[0] for name in names if "/images/" in name}
    yield from (f"{root}/{dataset}" for dataset in sorted(found))
