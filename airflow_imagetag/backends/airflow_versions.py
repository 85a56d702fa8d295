"""Differences between versions of Airflow, pandas and pyarrow, checked before anything is paid."""

from __future__ import annotations

from importlib.metadata import version

from airflow_imagetag.errors import ConfigurationError

PANDAS_3_SINCE = (3, 3)
"""First version of Airflow whose XComs take a DataFrame of pandas 3."""

PANDAS_FOR_EACH_PYARROW = (2, 3)
"""First version of pandas that each released pyarrow takes."""


def check_xcom_can_hold_frames() -> None:
    """Check that this Airflow can keep a DataFrame of this pandas in an XCom.

    :raises ConfigurationError: it cannot.
    """
    from airflow_imagetag.adapters.airflow_sdk import airflow_version

    check_frames_of(airflow_version(), version("pandas"))
    check_pyarrow_takes_frames()


def check_frames_of(airflow: tuple[int, int], pandas: str) -> None:
    """Check that a version of Airflow can keep a DataFrame of a version of pandas in an XCom.

    :param airflow: major and minor version.
    :param pandas: the version of pandas.
    :raises ConfigurationError: it cannot.
    """
    if airflow < PANDAS_3_SINCE and int(pandas.partition(".")[0]) >= 3:
        raise ConfigurationError(
            f"Airflow {airflow[0]}.{airflow[1]} cannot put a DataFrame of pandas {pandas} into an "
            "XCom. Install 'pandas<3', or Airflow 3.3 or newer."
        )


def check_pyarrow_takes_frames() -> None:
    """Check that this pyarrow works with this pandas: it turns frames into Parquet, and back.

    :raises ConfigurationError: it needs a newer pandas.
    """
    # Releases of pyarrow name the oldest pandas that they take only when a frame is converted. To
    # load both takes half a second, so that newer ones are taken for good.
    major, minor = version("pandas").split(".")[:2]
    if (int(major), int(minor)) >= PANDAS_FOR_EACH_PYARROW:
        return
    import pandas as pd
    import pyarrow as pa

    try:
        pa.Table.from_pandas(pd.DataFrame())
    except ImportError as error:
        raise ConfigurationError(
            f"pyarrow {pa.__version__} cannot convert DataFrames here: {error}. Install a newer "
            "pandas, or an older pyarrow: 'pyarrow<20' works with each pandas from 2.1.2 on."
        ) from None
