"""Texts in the statements of several databases: exact, whatever the collation of a column.

Loaded when a task reads or fills a table.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from airflow_imagetag.safety.uris import BLANKS

MYSQL = ("mysql", "mariadb")

EXACT_DIALECTS = (*MYSQL, "postgresql", "sqlite")
"""Databases whose texts can be compared byte by byte with these functions."""


def text_of(column: Any, dialect: str) -> Any:
    """Return the text of a column's values, which is different for different values.

    Bytes that are no UTF-8, or hold a zero byte, become hexadecimal digits, where the database
    would put a question mark or refuse the statement.

    :param dialect: the database, as SQLAlchemy names it.
    """
    if dialect in MYSQL:
        text = _utf8(column)
        is_same = _bytes(text).op("<=>", is_comparison=True)(_bytes(column))
        has_zero = sa.func.instr(_bytes(column), sa.literal(b"\0", sa.LargeBinary)) > 0
        is_no_text = (sa.func.charset(column) == "binary") & (~is_same | has_zero)
        return sa.case((is_no_text, sa.func.concat("0x", sa.func.hex(column))), else_=text)
    text = sa.cast(column, sa.String)
    if dialect == "sqlite":
        is_bytes = sa.func.typeof(column) == "blob"
        return sa.case((is_bytes, sa.func.imagetag_text(column)), else_=text)
    if dialect == "postgresql":
        # Of the database, under which texts are equal only letter by letter; that of the column may
        # call other texts equal.
        return text.collate("default")
    return text


def exact(text: Any, dialect: str) -> Any:
    """Return a text as the database orders and compares it byte by byte.

    :param dialect: the database, as SQLAlchemy names it.
    """
    if dialect in MYSQL:
        # In one character set, since tables may differ in theirs.
        return _bytes(_utf8(text))
    if dialect == "postgresql":
        return text.collate("C")
    return text.collate("BINARY") if dialect == "sqlite" else text


def is_blank(text: Any, dialect: str) -> Any:
    """Return the condition that a text is NULL, empty, or holds nothing but blanks.

    It is that of ``safety.uris.is_blank`` in PostgreSQL, MySQL and SQLite. In other databases only
    spaces are blanks.

    :param dialect: the database, as SQLAlchemy names it.
    """
    condition: Any
    if dialect == "postgresql":
        # As digits: the database may have an encoding without most of these characters.
        digits = sa.func.encode(sa.func.convert_to(sa.cast(text, sa.Text), "UTF8"), "hex")
        condition = digits.op("~")(_pattern())
    elif dialect in MYSQL:
        condition = sa.func.lower(sa.func.hex(_utf8(text))).op("REGEXP")(_pattern())
    elif dialect == "sqlite":
        condition = sa.func.trim(text, BLANKS) == ""
    else:
        condition = sa.func.trim(sa.cast(text, sa.String)) == ""
    return text.is_(None) | condition


def _utf8(value: Any) -> Any:
    return sa.cast(value, mysql.CHAR(charset="utf8mb4"))


def _bytes(value: Any) -> Any:
    return sa.cast(value, sa.LargeBinary)


@cache
def _pattern() -> str:
    return f"^({'|'.join(sorted(blank.encode().hex() for blank in BLANKS))})*$"
