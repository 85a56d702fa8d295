"""Places to keep labels in: PostgreSQL, SQLite, S3."""

from __future__ import annotations

from databases import (  # noqa: F401 (fixtures)
    bucket_fixture,
    database_fixture,
    postgres_fixture,
    s3_url_fixture,
    service_fixture,
    sqlite_fixture,
)
