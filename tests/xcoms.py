"""Values on their way through an XCom."""

from __future__ import annotations

import importlib
from typing import Any


def through_xcom(value: Any) -> Any:
    """Serialize a value as an XCom of the installed Airflow, and read it back."""
    try:
        serde: Any = importlib.import_module("airflow.sdk.serde")
    except ImportError:
        serde = importlib.import_module("airflow.serialization.serde")
    return serde.deserialize(serde.serialize(value))
