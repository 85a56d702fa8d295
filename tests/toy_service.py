"""The service of the page on adding one, as another package would have it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adding-a-service.md"
CODE = PAGE.read_text().partition("```python\n")[2].partition("```\n")[0]
"""The first block of the page; the following ones are its tests."""


def install(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Install a package with the service into a folder on the path, as pip would leave it."""
    (folder / "acme_labels.py").write_text(CODE)
    metadata = folder / "acme_labels-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-labels\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[airflow_imagetag.services]\nacme = acme_labels:Acme\n"
    )
    patch.syspath_prepend(str(folder))
    # Another test's folder is gone.
    patch.delitem(sys.modules, "acme_labels", raising=False)
