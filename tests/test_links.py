"""The check of links finds a page and an anchor that are not there."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "links.py"))


def test_a_link_to_no_page_or_anchor_is_found(tmp_path: Path) -> None:
    """Pages, anchors, pictures; percent signs are read, and other sites are left alone."""
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "other page.html").write_text('<h1 id="top">Other</h1><a href="../index.html">up</a>')
    (tmp_path / "index.html").write_text(
        '<a href="deep/other%20page.html#top">good</a><a href="#here">here</a><p id="here"></p>'
        '<a href="deep/other%20page.html#gone">anchor</a><a href="gone.html">page</a>'
        '<img src="gone.png"><a href="https://example.com/gone">elsewhere</a><a href="#gone">no</a>'
    )
    found, others = SCRIPT["faults"](tmp_path)
    assert found == [
        "index.html: deep/other%20page.html#gone: the page has no such anchor",
        "index.html: gone.html: there is no such file",
        "index.html: gone.png: there is no such file",
        "index.html: #gone: the page has no such anchor",
    ]
    assert others == 1
    assert SCRIPT["main"]([str(tmp_path)]) == 1


def test_a_folder_without_documentation_is_an_error(tmp_path: Path) -> None:
    """A check of nothing does not pass."""
    assert SCRIPT["main"]([str(tmp_path)]) == 2
