"""Private: makes the labeller of a run: the account, and the images that it may read."""

from __future__ import annotations

from airflow_imagetag.backends.parameter_files import configured_policy
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.labellers.base import Labeller
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.sources.base import ImageSource


def labeller_of(
    hook: ImageTagHook,
    source: ImageSource,
    *,
    is_fetched_by_worker: bool,
    needs_sha256: bool,
    max_connections: int,
    storage_conn_id: str | None = None,
) -> Labeller:
    """Return the labeller for the images of a source.

    :param hook: the account.
    :param source: the images, and the local files that the author of the DAG file has named.
    :param is_fetched_by_worker: the worker downloads http(s) URLs, not the service.
    :param needs_sha256: digests are kept, so that they must be those of other runs, too.
    :param max_connections: maximum number of connections kept open.
    :param storage_conn_id: the only connection that URIs of object storages from data may use.
    :raises ConfigurationError: the source names a local folder that is not allowed, or the worker
        is to download images for a service that takes no bytes.
    """
    trust = source.trust()
    allowed = configured_policy(storage_conn_id)
    folders = [*allowed.folders, *trust.folders]
    source.check_trusted(folders)
    account = hook.account
    is_local = account.local is not None
    if is_fetched_by_worker and not is_local and not hook.codec.takes_bytes:
        raise ConfigurationError(
            f"fetch='worker' sends bytes, and {account.api} takes none. Use fetch='service'."
        )
    loader = ContentLoader(
        folders,
        trust.paths,
        presign=source.send == "url" and not is_local,
        # A local model is no service that could download an image.
        downloader=hook.downloader() if is_fetched_by_worker or is_local else None,
        max_bytes=hook.max_image_bytes,
        service_url=account.endpoint or None,
        needs_sha256=needs_sha256,
        storages=trust.storages,
        connections=allowed.connections,
        object_key=None if is_local else hook.codec.object_key,
    )
    return hook.labeller(loader, max_connections=max_connections)
