"""Private: the runs of a store in a table of an SQL database; loaded by a running task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from airflow_imagetag.backends.dialects import dialect_of
from airflow_imagetag.frames import RUN_COLUMNS, RUN_COUNTS, frame
from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope
from airflow_imagetag.stores.sql_schema import UtcDateTime

if TYPE_CHECKING:
    import pandas as pd


def runs_table(name: str, schema: str | None) -> sa.Table:
    """Return the table of runs.

    :param name: name of the labels table.
    :param schema: its schema.
    """
    metadata = sa.MetaData(schema=schema, naming_convention={"pk": "pk_%(table_name)s"})
    return sa.Table(
        f"{name}_runs",
        metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("dag_id", sa.String(250)),
        sa.Column("task_id", sa.String(250)),
        sa.Column("run_id", sa.String(250)),
        sa.Column("map_index", sa.Integer),
        sa.Column("try_number", sa.Integer),
        sa.Column("api", sa.String(64), nullable=False),
        sa.Column("shard", sa.String(16)),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime),
        *(sa.Column(count, sa.Integer, nullable=False) for count in RUN_COUNTS),
        # 53 bits of mantissa: a double in every database.
        sa.Column("price_per_thousand", sa.Float(53)),
        sa.Column("cost", sa.Float(53)),
        sa.Column("held_calls", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error", sa.String(64)),
    )


class SqlRuns:
    """The runs of a store, all interfaces.

    :param engine: the database.
    :param name: name of the labels table.
    :param schema: its schema.
    """

    def __init__(self, engine: sa.Engine, name: str, schema: str | None) -> None:
        self.table = runs_table(name, schema)
        self._engine = engine
        self._writing = engine.execution_options(writes=True)

    @property
    def exists(self) -> bool:
        """Whether the table exists."""
        return dialect_of(self._engine).has_table(self._engine, self.table)

    def create(self) -> bool:
        """Create the table if it does not exist, and tell whether this was necessary.

        :raises sqlalchemy.exc.DBAPIError: the database refuses it.
        """
        if self.exists:
            return False
        try:
            dialect_of(self._engine).create(self._engine, self.table.metadata)
        except sa.exc.DBAPIError:
            # Two tasks may create it at once.
            if not self.exists:
                raise
        return True

    def put(self, run: RunRecord) -> None:
        """Write the row of a run, or overwrite it."""
        [row] = dialect_of(self._engine).storable([run.as_row()])
        ours = self.table.c.id == run.id
        with self._writing.begin() as connection:
            # Not by the number of updated rows, which not every driver tells.
            if connection.execute(sa.select(self.table.c.id).where(ours)).first() is None:
                connection.execute(self.table.insert(), [row])
                return
            values = {name: value for name, value in row.items() if name != "id"}
            connection.execute(self.table.update().where(ours).values(values))

    def unended(self, api: str) -> list[RunRecord]:
        """Return the runs of an interface that have no end."""
        table = self.table
        where = (table.c.api == api, table.c.ended_at.is_(None))
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(table).where(*where)).mappings().all()
        return [RunRecord.from_row(dict(row)) for row in rows]

    def spending(self, api: str, scope: SpendingScope) -> Spending:
        """Return the calls and the cost of the runs of an interface."""
        ours = self.table.c
        conditions: list[Any] = [ours.api == api]
        if scope.since is not None:
            conditions.append(ours.started_at >= scope.since)
        if (task := scope.task) is not None:
            conditions += [
                ours.dag_id == task.dag_id,
                ours.task_id == task.task_id,
                ours.run_id == task.run_id,
            ]
        price = sa.func.coalesce(ours.price_per_thousand, 0.0)
        statement = sa.select(
            sa.func.sum(ours.held_calls), sa.func.sum(ours.held_calls * price)
        ).where(*conditions)
        with self._engine.connect() as connection:
            calls, cost = connection.execute(statement).one()
        return Spending(int(calls or 0), float(cost or 0.0) / 1000)

    def frames(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the runs of all interfaces as frames, in the order of their starts.

        :param frame_rows: number of rows in a frame.
        """
        table = self.table
        columns = [table.c[name] for name in RUN_COLUMNS]
        statement = sa.select(*columns).order_by(table.c.started_at, table.c.id)
        fetched = min(frame_rows, dialect_of(self._engine).streamed_rows)
        options = {"stream_results": True, "yield_per": fetched}
        with self._engine.connect().execution_options(**options) as connection:
            result = connection.execute(statement)
            while rows := list(islice(result, frame_rows)):
                values = dict(zip(RUN_COLUMNS, zip(*rows, strict=True), strict=True))
                yield frame(values, RUN_COLUMNS)
