"""Private: the truth of an evaluation: the labels that images really have."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.descriptions import Description
from airflow_imagetag.backends.databases import engine_of, reason_of, split_name
from airflow_imagetag.backends.parameter_files import PathPolicy, read_named_file
from airflow_imagetag.errors import ConfigurationError, StorageError
from airflow_imagetag.safety.redaction import redact

if TYPE_CHECKING:
    import pandas as pd

MAX_TRUTH_BYTES = 256 * 1024 * 1024
"""Maximum size of a file: some millions of labels."""

KEY, LABEL = "image_key", "label"


@dataclass(repr=False)
class TruthTable(Description):
    """A table of the labels that images really have, one row for each image and label.

    :param conn_id: an Airflow connection whose hook is one of ``common.sql``. (templated)
    :param table: name of the table or view: ``table`` or ``schema.table``. (templated)
    :param key: column of the images' keys, as the store has them. (templated)
    :param label: column of the labels, missing for an image that has none. (templated)
    """

    conn_id: str
    table: str
    key: str = KEY
    label: str = LABEL

    template_fields: ClassVar[Sequence[str]] = ("conn_id", "table", "key", "label")

    @property
    def server_name(self) -> str:
        """Id of the connection."""
        return self.conn_id


def read_truth(truth: Any, policy: PathPolicy | None = None) -> pd.DataFrame:
    """Return the truth as a frame of two columns of text, each row once.

    :param truth: a frame, rows as dicts, a table or a path.
    :param policy: files that a path may name; None for any file.
    :raises ConfigurationError: it is none of these, lacks a column or has no rows.
    :raises StorageError: its table or file cannot be reached.
    """
    found = _frame_of(truth, policy)
    lacking = [name for name in (KEY, LABEL) if list(found.columns).count(name) != 1]
    if lacking:
        raise ConfigurationError(
            f"The truth must have the columns image_key and label once each, and has "
            f"{', '.join(map(str, found.columns)) or 'none'}. Rename or add: {', '.join(lacking)}."
        )
    if found.empty:
        raise ConfigurationError("The truth has no rows. Give it a row for each image and label.")
    texts = found[[KEY, LABEL]].copy()
    _check_keys(texts[KEY])
    for name in (KEY, LABEL):
        texts[name] = texts[name].map(str, na_action="ignore").astype("string")
    texts[LABEL] = texts[LABEL].mask(texts[LABEL].str.strip() == "")
    return texts.drop_duplicates(ignore_index=True)


def _check_keys(keys: pd.Series[Any]) -> None:
    if keys.isna().any():
        raise ConfigurationError(
            f"The truth has {int(keys.isna().sum()):,} rows without image_key. Leave them out."
        )
    if keys.dtype.kind == "f":
        raise ConfigurationError(
            "The column image_key of the truth has numbers with fractions, so its texts would not "
            "be those of the store. Convert it to texts or whole numbers."
        )


def _frame_of(truth: Any, policy: PathPolicy | None) -> pd.DataFrame:
    import pandas as pd

    if isinstance(truth, pd.DataFrame):
        return truth
    if isinstance(truth, TruthTable):
        return _from_table(truth)
    if isinstance(truth, str):
        return _from_file(truth, policy)
    is_rows = isinstance(truth, Sequence) and all(isinstance(row, Mapping) for row in truth)
    if not is_rows:
        raise ConfigurationError(
            "truth must be a DataFrame, a list of dicts with image_key and label, a TruthTable, or "
            f"the path of a .csv or .parquet file, not a {type(truth).__name__}."
        )
    return pd.DataFrame(list(truth))


def _from_table(truth: TruthTable) -> pd.DataFrame:
    import pandas as pd
    import sqlalchemy as sa
    from sqlalchemy import exc as sa_exc

    from airflow_imagetag.backends.dialects import dialect_of

    schema, name = split_name(truth.table, "table")
    columns: list[Any] = [sa.column(truth.key), sa.column(truth.label)]
    statement = sa.select(*columns).select_from(sa.table(name, *columns, schema=schema))
    engine = engine_of(truth.conn_id)
    try:
        with engine.connect() as connection:
            rows = connection.execute(statement).all()
    except sa_exc.DBAPIError as error:
        kind = StorageError if dialect_of(engine).is_transient(error) else ConfigurationError
        raise kind(
            f"The columns {truth.key} and {truth.label} of the table {truth.table} cannot be read "
            f"through connection {truth.conn_id!r}: {reason_of(error)}"
        ) from None
    finally:
        engine.dispose()
    texts = [(None if key is None else str(key), label) for key, label in rows]
    return pd.DataFrame(texts, columns=[KEY, LABEL])


def _from_file(path: str, policy: PathPolicy | None) -> pd.DataFrame:
    import pandas as pd

    what = f"truth {redact(path)}"
    kind = PurePosixPath(path).suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise ConfigurationError(
            f"{what} must be the path of a file that ends in .csv or .parquet. For a table of a "
            "database use TruthTable."
        )
    content = read_named_file(path, policy, "truth", MAX_TRUTH_BYTES)
    if len(content) > MAX_TRUTH_BYTES:
        raise ConfigurationError(
            f"{what} is larger than {MAX_TRUTH_BYTES // 1024 // 1024} MB. Use a TruthTable."
        )
    try:
        if kind == ".parquet":
            return pd.read_parquet(io.BytesIO(content))
        # Keys such as 007 and labels such as None are texts.
        return pd.read_csv(
            io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    # pyarrow's errors are ValueErrors, and so is one of decoding.
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{what} cannot be read: {str(error)[:300]}") from None
