"""Private: whether no two rows of a table can share a key; loaded only when a task reads one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from airflow_imagetag.backends.sql_texts import MYSQL

ENFORCING_DIALECTS = ("cockroachdb", "duckdb", "mssql", "oracle")
"""Further databases that enforce the unique keys which they report; data warehouses do not."""

SQLITE_COLLATIONS = ("BINARY", "NOCASE", "RTRIM")
"""The collations that every SQLite has."""

# A row of a child table may have the key of one in its parent. An index under another collation
# allows keys that the column's own collation calls equal.
_POSTGRES = """
SELECT count(*) FROM pg_index AS i
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
WHERE i.indrelid = to_regclass(:name) AND a.attname = :column
  AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
  AND (a.attcollation = i.indcollation[0] OR c.collisdeterministic)
  AND (t.relkind = 'p' OR NOT EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = t.oid))
"""

_MYSQL = """
SELECT count(*) FROM (
    SELECT s.INDEX_NAME FROM information_schema.STATISTICS AS s
    JOIN information_schema.TABLES AS t
      ON t.TABLE_SCHEMA = s.TABLE_SCHEMA AND t.TABLE_NAME = s.TABLE_NAME
    WHERE s.TABLE_SCHEMA = COALESCE(:schema, DATABASE()) AND s.TABLE_NAME = :name
      AND t.ENGINE NOT IN ('MRG_MYISAM', 'MERGE', 'FEDERATED', 'CONNECT', 'SPIDER')
    GROUP BY s.INDEX_NAME
    HAVING MAX(s.NON_UNIQUE) = 0 AND COUNT(*) = 1 AND MAX(s.COLUMN_NAME) = :column
       AND MAX(s.SUB_PART) IS NULL
) AS found
"""

_SQLITE_INDEXES = """
SELECT i.origin, min(x.coll), count(*), min(x.name)
FROM pragma_index_list(:name, :schema) AS i
JOIN pragma_index_xinfo(i.name, :schema) AS x ON x."key" = 1
WHERE i."unique" = 1 AND i.partial = 0 GROUP BY i.name
"""
_SQLITE_COLUMNS = "SELECT name, type, pk FROM pragma_table_info(:name, :schema)"


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """No two rows of a table have equal keys.

    :param collation: the keys are equal under this collation of SQLite; None for the column's own.
    """

    collation: str | None = None


def unique_key(
    engine: sa.Engine, inspector: Any, name: str, schema: str | None, column: str
) -> UniqueKey | None:
    """Return how the database keeps a column unique; None if two rows may have equal values.

    Indexes of some rows, of an expression or of the beginning of a text do not count.

    :param engine: the database.
    :param inspector: SQLAlchemy's inspector of the engine.
    :param name: the table.
    :param schema: its schema.
    :param column: the column.
    """
    dialect = engine.dialect.name
    if dialect == "sqlite":
        return _in_sqlite(engine, name, schema, column)
    if dialect == "postgresql":
        regclass = engine.dialect.identifier_preparer.format_table(sa.table(name, schema=schema))
        is_unique = _count(engine, _POSTGRES, name=regclass, column=column) > 0
    elif dialect in MYSQL:
        is_unique = _count(engine, _MYSQL, name=name, schema=schema, column=column) > 0
    else:
        is_unique = dialect in ENFORCING_DIALECTS and _is_reported(inspector, name, schema, column)
    return UniqueKey() if is_unique else None


def _count(engine: sa.Engine, statement: str, **values: Any) -> int:
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text(statement), values).scalar_one())
    except sa_exc.ProgrammingError:
        # A server that only resembles this database has other catalogs.
        return 0


def _in_sqlite(engine: sa.Engine, name: str, schema: str | None, column: str) -> UniqueKey | None:
    values = {"name": name, "schema": schema or "main"}
    with engine.connect() as connection:
        columns = connection.execute(sa.text(_SQLITE_COLUMNS), values).all()
        indexes = connection.execute(sa.text(_SQLITE_INDEXES), values).all()
    declared = {row[0]: str(row[1]).upper() for row in columns}.get(column, "")
    if not declared or "BLOB" in declared or declared == "ANY":
        # The number 1 and the text '1' are different values of one text.
        return None
    keys = [row[0] for row in columns if row[2]]
    if keys == [column] and not any(origin == "pk" for origin, *_ in indexes):
        # The number of the row itself.
        return UniqueKey()
    for _, collation, count, indexed in indexes:
        if count == 1 and indexed == column and collation in SQLITE_COLLATIONS:
            return UniqueKey(collation)
    return None


def _is_reported(inspector: Any, name: str, schema: str | None, column: str) -> bool:
    found = [inspector.get_pk_constraint(name, schema=schema).get("constrained_columns")]
    found += [
        constraint["column_names"]
        for constraint in inspector.get_unique_constraints(name, schema=schema)
    ]
    found += [
        index["column_names"]
        for index in inspector.get_indexes(name, schema=schema)
        if index.get("unique")
        and not index.get("expressions")
        and not any(option.endswith("_where") for option in index.get("dialect_options", {}))
    ]
    return [column] in found
