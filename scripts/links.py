"""Check that each link of the built documentation leads to a page and an anchor that exist.

    python scripts/links.py docs/_build/html

It needs no network: links to other sites are only counted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

NOT_OURS = ("_static", "genindex", "search", "py-modindex", "_modules")
"""Beginnings of pages that Sphinx itself makes."""


@dataclass
class Page(HTMLParser):
    """The links of a page and its anchors."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the links and the anchors of a tag."""
        del tag
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.links += [found[name] for name in ("href", "src") if name in found]


def read(path: Path) -> Page:
    """Return the links and anchors of a file."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def faults(folder: Path) -> tuple[list[str], int]:
    """Return the faults, a line for each link, and the number of links to other sites."""
    pages = {path.resolve(): read(path) for path in sorted(folder.rglob("*.html"))}
    found, others = [], 0
    for path, page in pages.items():
        name = path.relative_to(folder.resolve()).as_posix()
        # The Chinese pages are a site of their own below this one.
        if name.removeprefix("zh/").startswith(NOT_OURS):
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                others += 1
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists():
                found.append(f"{name}: {link}: there is no such file")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{name}: {link}: the page has no such anchor")
    return found, others


def main(arguments: list[str]) -> int:
    """Print what is wrong, and return 1 if something is."""
    folder = Path(arguments[0] if arguments else "docs/_build/html")
    if not (folder / "index.html").exists():
        print(f"There is no documentation in {folder}: run 'make docs'", file=sys.stderr)
        return 2
    found, others = faults(folder)
    for line in found:
        print(line)
    print(f"{len(found)} broken links; {others:,} links to other sites were not followed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
