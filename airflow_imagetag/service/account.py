"""Import path of version 0.1.0; new code imports from ``airflow_imagetag.services``."""

from airflow_imagetag.services.account import Account

__all__ = ["Account"]
