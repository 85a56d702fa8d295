"""The pages of stores without an Airflow around them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from airflow_imagetag.stores import LabelStore
from airflow_imagetag.ui.application import make_application
from airflow_imagetag.ui.asgi import LazyApplication
from airflow_imagetag.ui.hub import StoreHub
from airflow_imagetag.ui.thumbnails import Thumbnails, configured_thumbnails


def may_see() -> None:
    """Let every reader see the pages."""


@contextmanager
def application_of(
    stores: Mapping[str, LabelStore], thumbnails: Thumbnails | None = None
) -> Iterator[LazyApplication]:
    """Make the application as Airflow mounts it, but for the check of the reader.

    :param thumbnails: makes the small pictures; by default that of the configuration.
    """
    hub = StoreHub(stores)
    made = make_application(hub, thumbnails or configured_thumbnails(), may_see)
    yield LazyApplication(lambda: made)
    hub.close()


@contextmanager
def client_of(
    stores: Mapping[str, LabelStore], thumbnails: Thumbnails | None = None
) -> Iterator[TestClient]:
    """Make a client of the pages of stores."""
    with application_of(stores, thumbnails) as application:
        yield TestClient(application, follow_redirects=False)


@contextmanager
def served(application: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port for a ``with`` block, whose value is the URL."""
    config = uvicorn.Config(
        application, port=0, http="h11", ws="none", lifespan="off", log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
