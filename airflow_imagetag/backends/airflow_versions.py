"""Differences between versions of Airflow and pandas that decide before anything is paid for."""

from __future__ import annotations

from importlib.metadata import version

from airflow_imagetag.errors import ConfigurationError


def check_xcom_can_hold_frames() -> None:
    """Check that this Airflow can keep a DataFrame of this pandas in an XCom.

    :raises ConfigurationError: it cannot.
    """
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return
    found = version("pandas")
    if int(found.partition(".")[0]) >= 3:
        raise ConfigurationError(
            f"Airflow 2 cannot put a DataFrame of pandas {found} into an XCom. Install "
            "'pandas<3', or Airflow 3."
        )
