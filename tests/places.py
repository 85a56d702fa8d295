"""Sources and stores of the same images, so that one test can run on each of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from databases import API, Database, tagged

from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.base import LabelStore

NOWHERE = "http://127.0.0.1:1"


class Place(ABC):
    """A place that holds images."""

    @abstractmethod
    def source(self, **fields: Any) -> ImageSource:
        """Describe it."""

    @abstractmethod
    def put(self, *names: str, content: int = 0, age: float = 0) -> None:
        """Write images, or replace them.

        :param content: another number is another version.
        :param age: seconds since they were written; a bucket takes 0 only.
        """

    @abstractmethod
    def put_nothing(self, name: str) -> None:
        """Write an entry that is no image."""

    @abstractmethod
    def delete(self, *names: str) -> None:
        """Remove images."""

    @abstractmethod
    def image(self, name: str) -> dict[str, str | None]:
        """Return the image as the sensor gives it."""

    @abstractmethod
    def away(self, patch: pytest.MonkeyPatch) -> Any:
        """Return a context in which the place is unreachable."""


class SqlPlace(Place):
    """A table."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._versions: dict[str, str] = {}
        kind = "timestamptz" if database.is_postgres else "timestamp"
        database.run(
            f"CREATE TABLE products (id varchar(99) PRIMARY KEY, image_url text, changed {kind})"
        )

    def source(self, **fields: Any) -> SqlImages:
        """Describe it."""
        return SqlImages("warehouse", **({"table": "products", "version": "changed"} | fields))

    def put(self, *names: str, content: int = 0, age: float = 0) -> None:
        """Write rows."""
        changed = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=age - content)
        text = changed.isoformat(" ", "microseconds") + ("+00" if self.database.is_postgres else "")
        self.delete(*names)
        self.database.run(
            "INSERT INTO products VALUES (:id, :uri, :changed)",
            *({"id": name, "uri": self._uri(name), "changed": text} for name in names),
        )
        for name in names:
            [[self._versions[name]]] = self.database.rows(
                "SELECT cast(changed AS text) FROM products WHERE id = :id", id=name
            )

    def put_nothing(self, name: str) -> None:
        """Write a row without a URI."""
        self.database.run("INSERT INTO products VALUES (:id, NULL, NULL)", {"id": name})

    def delete(self, *names: str) -> None:
        """Remove rows."""
        self.database.run("DELETE FROM products WHERE id = :id", *({"id": name} for name in names))

    def image(self, name: str) -> dict[str, str | None]:
        """Return the row as the sensor gives it."""
        version = self._versions[name]
        return {"image_key": name, "image_uri": self._uri(name), "version": version}

    @contextlib.contextmanager
    def away(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Point the connection to a server that does not run."""
        fields = json.loads(self.database.connection_json)
        patch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields | {"host": "/nowhere"}))
        yield
        patch.setenv("AIRFLOW_CONN_WAREHOUSE", self.database.connection_json)

    @staticmethod
    def _uri(name: str) -> str:
        return f"https://shop/{name}.jpg"


class BucketPlace(Place):
    """A folder of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._etags: dict[str, str] = {}

    def source(self, **fields: Any) -> ObjectStorageImages:
        """Describe it."""
        path = f"s3://aws_default@{self.bucket.name}/photos/"
        return ObjectStorageImages(fields.pop("path", path), **fields)

    def put(self, *names: str, content: int = 0, age: float = 0) -> None:
        """Write objects."""
        assert not age, "The storage notes the true time."
        objects = {f"photos/{name}.jpg": f"{name} {content}".encode() for name in names}
        self.bucket.put_many(objects.items())
        for name, body in zip(names, objects.values(), strict=True):
            self._etags[name] = hashlib.md5(body).hexdigest()

    def put_nothing(self, name: str) -> None:
        """Write an empty object."""
        self.bucket.put(f"photos/{name}.jpg", b"")

    def delete(self, *names: str) -> None:
        """Remove objects."""
        for name in names:
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=f"photos/{name}.jpg")

    def image(self, name: str) -> dict[str, str | None]:
        """Return the object as the sensor gives it."""
        path = f"{self.bucket.name}/photos/{name}.jpg"
        return {
            "image_key": f"s3://{path}",
            "image_uri": f"s3://aws_default@{path}",
            "version": self._etags[name],
        }

    @contextlib.contextmanager
    def away(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Point the connection to a server that does not run."""
        fields = json.loads(self.bucket.connection_json)
        fields["extra"] |= {
            "endpoint_url": NOWHERE,
            "config_kwargs": {"retries": {"total_max_attempts": 1}},
        }
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(fields))
        yield
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", self.bucket.connection_json)


def label(place: Place, store: LabelStore, *names: str) -> None:
    """Write labels for the present versions of images."""
    images = [place.image(name) for name in names]
    with store.open(API) as opened:
        opened.write(
            [
                tagged(
                    str(image["image_key"]), "x", uri=image["image_uri"], version=image["version"]
                )
                for image in images
            ]
        )


# Pairs of a source and a store: one database, two kinds, one storage.
PAIRS = ("postgres-sql", "sqlite-sql", "sqlite-parquet", "bucket-sql", "bucket-parquet")


def make_pair(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Place, LabelStore]:
    """Return a source and a store."""
    where, _, kind = name.partition("-")
    place: Place
    if where == "bucket":
        place = BucketPlace(request.getfixturevalue("bucket"))
        if kind == "sql":
            request.getfixturevalue("sqlite")
    else:
        place = SqlPlace(request.getfixturevalue(where))
    store = SqlLabelStore("warehouse") if kind == "sql" else ParquetLabelStore(f"{tmp_path}/lake")
    return place, store
