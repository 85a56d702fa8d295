"""Assets: a store as an asset, and the images that a watcher has announced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_imagetag.errors import ConfigurationError

__all__ = [
    "announced_images",
    "convert_asset_to_openlineage",
    "create_asset",
    "sanitize_uri",
    "watch_images",
]

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.openlineage.facet import Dataset as OpenLineageDataset

    from airflow_imagetag.adapters.airflow_sdk import Asset


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return the URI of a label table in its normal form; Airflow asks for ``imagetag://``.

    :param uri: ``imagetag://connection/table`` or ``imagetag://connection/schema/table``.
    :raises ValueError: it names no connection or no table.
    """
    parts = uri.path.strip("/").split("/")
    if not uri.netloc or not all(parts) or len(parts) > 2:
        raise ValueError(
            "An imagetag:// URI is imagetag://connection/table or imagetag://connection/schema/table"
        )
    return uri._replace(path="/" + "/".join(parts))


def create_asset(*, conn_id: str, table: str, schema: str | None = None) -> Asset:
    """Return the asset of a label table, as ``SqlLabelStore.asset`` does.

    :param conn_id: connection of the database.
    :param table: name of the labels table.
    :param schema: its schema.
    """
    from airflow_imagetag.stores.sql import SqlLabelStore

    return SqlLabelStore(conn_id, table, schema=schema).asset


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:
    """Return the dataset of OpenLineage for the asset of a label table.

    Airflow asks for it where a task has the asset as an inlet or an outlet.

    :param asset: ``imagetag://connection/table`` or ``imagetag://connection/schema/table``.
    :param lineage_context: the operator or hook that asks; not used.
    :raises ConfigurationError: the connection cannot be looked up.
    """
    del lineage_context
    from airflow.providers.common.compat.openlineage.facet import Dataset

    from airflow_imagetag.adapters.dataset_refs import TableRef
    from airflow_imagetag.backends.databases import quoted_name
    from airflow_imagetag.lineage.datasets import names_of

    parts = urlsplit(asset.uri)
    schema, _, table = parts.path.strip("/").rpartition("/")
    place = TableRef(unquote(parts.netloc), quoted_name(unquote(table)), unquote(schema) or None)
    found = names_of(place)
    if not found:
        raise ConfigurationError(f"The connection of {asset.uri} cannot be looked up.")
    return Dataset(namespace=found[0].namespace, name=found[0].name)


def watch_images(name: str, **parameters: Any) -> Asset:
    """Return an asset that starts DAG runs when images are new; it needs Airflow 3.

    :param name: names the asset and its watcher.
    :param parameters: of :class:`~airflow_imagetag.triggers.imagetag.NewImagesTrigger`; ``images``
        and ``store`` are needed.
    :raises ConfigurationError: this is Airflow 2, or a parameter is wrong.
    """
    from airflow_imagetag.adapters.airflow_sdk import airflow_version

    if airflow_version() < (3, 0):
        raise ConfigurationError(
            "Assets that watch for new images need Airflow 3. On Airflow 2.11 use NewImagesSensor "
            "in a DAG with a schedule."
        )
    from airflow.sdk import Asset, AssetWatcher

    from airflow_imagetag.triggers.imagetag import NewImagesTrigger

    trigger = NewImagesTrigger(**parameters)
    trigger.check()
    return Asset(name, watchers=[AssetWatcher(name=name, trigger=trigger)])


def announced_images(asset_events: Any) -> list[dict[str, str | None]]:
    """Return the images that started a run, as ``ImageTagOperator(images=...)`` takes them.

    A run that was started by hand has none.

    :param asset_events: ``triggering_asset_events`` of the run's context.
    """
    images: dict[tuple[Any, Any], dict[str, str | None]] = {}
    for image in _images_of(asset_events or {}):
        images[image["image_key"], image["version"]] = image
    return list(images.values())


def _images_of(asset_events: Mapping[Any, Iterable[Any]]) -> Iterator[dict[str, str | None]]:
    for of_one_asset in asset_events.values():
        for event in of_one_asset:
            payload = (event.extra or {}).get("payload")
            # Events of other kinds may have started the run as well.
            found = payload.get("images") if isinstance(payload, Mapping) else None
            for image in found if isinstance(found, list) else ():
                if isinstance(image, dict) and {"image_key", "version"} <= image.keys():
                    yield image
