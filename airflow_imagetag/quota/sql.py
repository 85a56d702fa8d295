"""A ledger of slots in an SQL database."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.databases import engine_of, reason_of
from airflow_imagetag.errors import QuotaUnavailableError
from airflow_imagetag.quota import REMEDY

TABLE = "imagetag_quota"


class SqlSchedule:
    """Slots that all processes share which use the same database and name.

    They stand in the table ``imagetag_quota``, a row for each quota, which is made on first use.

    :param conn_id: an Airflow connection whose hook is one of ``common.sql``.
    :param name: names the quota, up to 200 characters.
    :raises ConfigurationError: the connection cannot be used.
    """

    def __init__(self, conn_id: str, name: str) -> None:
        self._conn_id = conn_id
        self._name = name
        self._engine = engine_of(conn_id).execution_options(writes=True)
        self._table = sa.Table(
            TABLE,
            sa.MetaData(),
            sa.Column("name", sa.String(200), primary_key=True),
            sa.Column("next_at", sa.BigInteger, nullable=False),
        )
        self._is_there = False

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins.

        :raises QuotaUnavailableError: the database does not answer, or refuses.
        """
        width = round(count * interval_seconds * 1_000_000)
        try:
            self._prepare()
            with self._engine.begin() as connection:
                now = self._now()
                slots = self._table.c
                mine = slots.name == self._name
                # The row stays locked until its new value is read.
                connection.execute(
                    self._table.update()
                    .where(mine)
                    .values(
                        next_at=sa.case((slots.next_at > now, slots.next_at), else_=now) + width
                    )
                )
                end, read_at = connection.execute(sa.select(slots.next_at, now).where(mine)).one()
        except sa_exc.SQLAlchemyError as error:
            self._is_there = False
            raise QuotaUnavailableError(
                f"The shared quota cannot be asked through connection {self._conn_id!r}: "
                f"{reason_of(error)}. {REMEDY}"
            ) from None
        return float(end - width - read_at) / 1_000_000

    def _prepare(self) -> None:
        if self._is_there:
            return
        try:
            self._table.create(self._engine, checkfirst=True)
        except sa_exc.DBAPIError:
            # Two tasks that make it at once: one of them fails, and finds it now.
            self._table.create(self._engine, checkfirst=True)
        with self._engine.begin() as connection:
            mine = self._table.c.name == self._name
            found = connection.execute(sa.select(self._table.c.name).where(mine)).first()
        if found is None:
            try:
                with self._engine.begin() as connection:
                    connection.execute(self._table.insert().values(name=self._name, next_at=0))
            except sa_exc.IntegrityError:
                # Another task was first.
                pass
        self._is_there = True

    def _now(self) -> Any:
        """Return the server's clock in microseconds; a SQLite file has that of its machine."""
        dialect = self._engine.dialect.name
        if dialect == "postgresql":
            # now() would be that of the transaction's beginning, before it waited for the row.
            moment: Any = sa.func.extract("epoch", sa.func.clock_timestamp())
            return sa.cast(moment * 1_000_000, sa.BigInteger)
        if dialect in ("mysql", "mariadb"):
            # SQLAlchemy's own function of this name takes no precision: it would tell seconds.
            moment = sa.func.unix_timestamp(sa.literal_column("SYSDATE(6)"))
            return sa.cast(moment * 1_000_000, sa.Integer)
        return sa.literal(int(time.time() * 1_000_000), sa.BigInteger)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
