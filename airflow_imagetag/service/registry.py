"""Import path of version 0.1.0; new code imports from ``airflow_imagetag.services``."""

from airflow_imagetag.services.registry import BUILT_IN, ENTRY_POINTS, find_service

__all__ = ["BUILT_IN", "ENTRY_POINTS", "find_service"]
