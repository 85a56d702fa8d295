"""Buckets of a real S3 protocol server.

``conftest.py`` registers this module as a plugin, so every test may use its fixtures.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from session_end import at_session_end

_numbers = itertools.count(1)


@dataclass
class Bucket:
    """A bucket in a real S3 protocol server behind the connection ``aws_default``.

    :param name: of the bucket.
    :param client: boto3's.
    :param url: of the server.
    :param connection_json: the connection, for other processes.
    """

    name: str
    client: Any
    url: str
    connection_json: str

    def put(self, key: str, body: bytes) -> str:
        """Write an object and return its ETag."""
        answer = self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return str(answer["ETag"]).strip('"')

    def put_many(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write objects into the server itself; the protocol takes ten milliseconds for each."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for key, body in objects:
            backend.put_object(self.name, key, body)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects, a thousand in each request."""
        left = iter(keys)
        while some := [*itertools.islice(left, 1000)]:
            objects = [{"Key": key} for key in some]
            self.client.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})

    def grow_old(self) -> None:
        """Set the time of all objects back by an hour."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for key in self.all_keys():
            stored = backend.get_object(self.name, key)
            assert stored is not None
            stored.last_modified -= timedelta(hours=1)

    def all_keys(self) -> set[str]:
        """Return the keys of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}


@cache
def s3_server(config: pytest.Config) -> str:
    """Start the server that all tests share, once, and return its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    at_session_end(config, server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def s3_connection(url: str, **changes: Any) -> str:
    """Return an Airflow connection to the S3 server as JSON."""
    fields = {
        "conn_type": "aws",
        "login": "AKIATESTACCESSKEY000",
        "password": "testSecretAccessKey",
        "extra": {"endpoint_url": url, "region_name": "us-east-1"},
    }
    return json.dumps(fields | changes)


@pytest.fixture
def s3_url(pytestconfig: pytest.Config) -> str:
    """Give the URL of the S3 server that all tests share.

    One server, since fsspec and Airflow keep a connection's file system for good.
    """
    return s3_server(pytestconfig)


@contextlib.contextmanager
def s3_bucket(config: pytest.Config, patch: pytest.MonkeyPatch, name: str = "") -> Iterator[Bucket]:
    """Make a bucket and the connection ``aws_default`` to it.

    :param name: of the bucket; a new one by default.
    """
    import boto3
    from botocore.config import Config

    s3_url = s3_server(config)
    connection_json = s3_connection(s3_url)
    patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection_json)
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id="AKIATESTACCESSKEY000",
        aws_secret_access_key="testSecretAccessKey",
        config=Config(retries={"max_attempts": 1}),
    )
    name = name or f"bucket-{os.getpid()}-{next(_numbers)}"
    client.create_bucket(Bucket=name)
    yield Bucket(name, client, s3_url, connection_json)
    client.close()


@pytest.fixture
def bucket(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Give a fresh bucket."""
    with s3_bucket(pytestconfig, monkeypatch) as bucket:
        yield bucket
