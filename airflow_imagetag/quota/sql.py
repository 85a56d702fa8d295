"""A schedule of slots in an SQL database."""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import engine_of, reason_of
from airflow_imagetag.backends.dialects import dialect_of
from airflow_imagetag.errors import ConfigurationError, QuotaUnavailableError
from airflow_imagetag.quota import REMEDY

TABLE = "imagetag_quota"


class SqlSchedule:
    """Slots shared by all processes that use the same database and name.

    The table ``imagetag_quota``, which is created on first use, has a row for each quota.

    :param conn_id: an Airflow connection whose hook is one of ``common.sql``.
    :param name: name of the quota, up to 200 characters.
    :raises ConfigurationError: the connection cannot be used.
    """

    def __init__(self, conn_id: str, name: str) -> None:
        self._conn_id = conn_id
        self._name = name
        self._engine = engine_of(conn_id).execution_options(writes=True)
        self._dialect = dialect_of(self._engine)
        if self._dialect.is_warehouse:
            raise ConfigurationError(
                f"Connection {conn_id!r} is a warehouse ({self._dialect.name}), which is too slow "
                "for a quota that tasks share. Give quota_conn_id a Redis, PostgreSQL or MySQL."
            )
        self._table = sa.Table(
            TABLE,
            sa.MetaData(),
            sa.Column("name", sa.String(200), primary_key=True),
            sa.Column("next_at", sa.BigInteger, nullable=False),
        )
        self._is_prepared = False

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots.

        :raises QuotaUnavailableError: the database does not answer, or refuses.
        """
        width = round(count * interval_seconds * 1_000_000)
        try:
            self._prepare()
            with self._engine.begin() as connection:
                now = self._dialect.now_microseconds()
                slots = self._table.c
                own_row = slots.name == self._name
                # The update locks the row until the transaction ends, so the value read is its own.
                connection.execute(
                    self._table.update()
                    .where(own_row)
                    .values(
                        next_at=sa.case((slots.next_at > now, slots.next_at), else_=now) + width
                    )
                )
                end, read_at = connection.execute(
                    sa.select(slots.next_at, now).where(own_row)
                ).one()
                answered_at = time.monotonic()
        except sa_exc.SQLAlchemyError as error:
            self._is_prepared = False
            raise QuotaUnavailableError(
                f"The shared quota cannot be asked through connection {self._conn_id!r}: "
                f"{reason_of(error)}. {REMEDY}"
            ) from None
        # A commit may take as long as a disk.
        return float(end - width - read_at) / 1_000_000 - (time.monotonic() - answered_at)

    def _prepare(self) -> None:
        if self._is_prepared:
            return
        try:
            self._table.create(self._engine, checkfirst=True)
        except sa_exc.DBAPIError:
            # Of two tasks that create it at once, one fails, and finds it now.
            self._table.create(self._engine, checkfirst=True)
        with self._engine.begin() as connection:
            own_row = self._table.c.name == self._name
            found = connection.execute(sa.select(self._table.c.name).where(own_row)).first()
        if found is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(self._table.insert().values(name=self._name, next_at=0))
            except sa_exc.IntegrityError:
                # Another task was first.
                pass
        self._is_prepared = True

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
