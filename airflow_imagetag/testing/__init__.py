"""A local stand-in for the label service, for the tests of DAGs and clients that use it.

:class:`Emulator` is a real HTTP server that speaks the service's V2 and V1 protocols;
:class:`Faults` describes its errors; :class:`Stats` holds its counts. The server needs the extra
``emulator`` (Pillow); importing this package needs nothing.
"""

from __future__ import annotations

from airflow_imagetag.testing.emulator import Emulator
from airflow_imagetag.testing.faults import Faults
from airflow_imagetag.testing.stats import Stats

__all__ = ["Emulator", "Faults", "Stats"]
