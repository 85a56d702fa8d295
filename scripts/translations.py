"""Keep the Chinese translation in step with the English pages.

    python scripts/translations.py update    # takes the English texts over, makes README.zh-CN.md
    python scripts/translations.py check     # fails, and names each text that is not translated

A text is a paragraph, a heading, an item or a cell. Its translation stands in
``docs/locale/zh_CN/LC_MESSAGES/<page>.po``. Code blocks stay English, and so does a text that is
only code. ``README.zh-CN.md`` is made from ``README.md`` and ``README.po``.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from markdown_it import MarkdownIt
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "index",
    "start",
    "connection",
    "local",
    "operator",
    "tables",
    "buckets",
    "failures",
    "quota",
    "migrating",
)
README = "README"
OWN_LANGUAGE = {"[中文](README.zh-CN.md)": "[English](README.md)"}
"""Lines of the README that differ in its translation, without being translated."""

HEADER = r"""# Chinese (simplified) translation of the documentation.
msgid ""
msgstr ""
"Language: zh_CN\n"
"MIME-Version: 1.0\n"
"Content-Type: text/plain; charset=utf-8\n"
"Content-Transfer-Encoding: 8bit\n"

"""

CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(([^()\s]*)\)|<(https?://[^<>\s]+)>")
PLACEHOLDER = re.compile(r"\{[^{}]*\}|<[^<>]*>|%[sd]")
NUMBER = re.compile(r"\d(?:[\d.,]*\d)?")


@dataclass(frozen=True)
class Tree:
    """A checkout.

    :param root: its folder.
    :param pages: names of the translated pages, without ``.md``.
    """

    root: Path
    pages: Sequence[str]

    def catalog_path(self, page: str) -> Path:
        """Return the path of a page's translation."""
        return self.root / "docs" / "locale" / "zh_CN" / "LC_MESSAGES" / f"{page}.po"

    def page_path(self, page: str) -> str:
        """Return the path of an English page, for a message."""
        return "README.md" if page == README else f"docs/{page}.md"

    @property
    def readme(self) -> str:
        """The English README."""
        return (self.root / "README.md").read_text(encoding="utf-8")

    @property
    def chinese_readme_path(self) -> Path:
        """The file that is made from the README and its translation."""
        return self.root / "README.zh-CN.md"


def main(arguments: Sequence[str] | None = None, tree: Tree | None = None) -> int:
    """Update or check the translations, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=("update", "check"))
    update_wanted = parser.parse_args(arguments).action == "update"
    tree = tree or Tree(ROOT, PAGES)
    texts = english_texts(tree)
    if update_wanted:
        update(tree, texts)
    problems = list(check(tree, texts))
    for problem in problems:
        print(problem)
    if problems:
        print(
            f"{len(problems)} problems. Run `python scripts/translations.py update`, translate the "
            "texts that are empty or marked `fuzzy` in docs/locale, then update again."
        )
    return 1 if problems else 0


def english_texts(tree: Tree) -> dict[str, list[str]]:
    """Return the texts of each page that need a translation, in their order."""
    readme = (text for text, _ in _readme_texts(tree.readme) if text not in OWN_LANGUAGE)
    result = {README: _prose(readme)}
    with tempfile.TemporaryDirectory() as folder:
        app = Sphinx(
            tree.root / "docs",
            tree.root / "docs",
            folder,
            folder,
            "gettext",
            confoverrides={
                "extensions": ["myst_parser"],
                "include_patterns": [f"{page}.md" for page in tree.pages],
                "root_doc": tree.pages[0],
            },
            status=None,
            warning=None,
        )
        app.build()
        for page in tree.pages:
            with (Path(folder) / f"{page}.pot").open("rb") as file:
                result[page] = _prose(str(message.id) for message in read_po(file))
    return result


def _prose(texts: Iterable[str]) -> list[str]:
    """Return each text once, without those that are only code."""
    return [text for text in dict.fromkeys(texts) if re.search(r"[^\W\d_]", _words(text))]


def _words(text: str) -> str:
    """Return a text without its code and the targets of its links."""
    return LINK.sub("]", CODE.sub("", text))


def _readme_texts(readme: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the texts of the README, and where each begins and ends."""
    starts = [0]
    for line in readme.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    end = 0
    for token in MarkdownIt("commonmark").enable("table").parse(readme):
        if token.type == "inline" and token.map and token.content:
            words = token.content.split()
            start = max(end, starts[token.map[0]])
            match = re.compile(r"\s+".join(map(re.escape, words))).search(readme, start)
            if match is None:
                raise ValueError(f"README.md: the place of {token.content!r} was not found.")
            end = match.end()
            yield " ".join(words), match.span()


def read_catalog(path: Path) -> Catalog:
    """Return a page's translations; an empty catalog, if it has none."""
    if not path.exists():
        return Catalog(locale="zh_CN")
    with path.open("rb") as file:
        return read_po(file, locale="zh_CN")


def update(tree: Tree, texts: Mapping[str, Sequence[str]]) -> None:
    """Give each .po file the texts of its page, with the translations that it has.

    A changed text keeps the translation of the most similar old one, marked as fuzzy.
    """
    for page, wanted in texts.items():
        template = Catalog()
        for text in wanted:
            template.add(text)
        catalog = read_catalog(tree.catalog_path(page))
        catalog.update(template)
        file = io.BytesIO()
        # One line a text, and no places: a diff shows the texts that changed.
        write_po(
            file,
            catalog,
            width=0,
            no_location=True,
            omit_header=True,
            ignore_obsolete=True,
            include_previous=True,
        )
        path = tree.catalog_path(page)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + file.getvalue().decode().strip() + "\n", encoding="utf-8")
    chinese = chinese_readme(tree.readme, read_catalog(tree.catalog_path(README)))
    tree.chinese_readme_path.write_text(chinese, encoding="utf-8")


def chinese_readme(readme: str, catalog: Catalog) -> str:
    """Return the README with each text replaced by its translation, where there is one."""
    pieces = []
    end = 0
    for text, (start, after) in _readme_texts(readme):
        message = catalog.get(text)
        translation = OWN_LANGUAGE.get(text) or (message and not message.fuzzy and message.string)
        anchor = "-".join(re.findall(r"[\w-]+", text.lower()))
        if f"](#{anchor})" in readme and readme[:start].endswith("# "):
            # The English heading gives the anchor that links name.
            pieces += [readme[end:start], f'<a id="{anchor}"></a>', str(translation or text)]
        else:
            pieces += [readme[end:start], str(translation or text)]
        end = after
    return "".join([*pieces, readme[end:]])


def check(tree: Tree, texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield each fault of the translations, with its page and text."""
    for page, wanted in texts.items():
        catalog = read_catalog(tree.catalog_path(page))
        for text in wanted:
            for fault in _faults(text, catalog):
                yield f"{tree.page_path(page)}: {fault}: {text}"
        held = [str(message.id) for message in catalog if message.id]
        for text in [*held, *map(str, catalog.obsolete)]:
            if text not in wanted:
                yield f"{tree.page_path(page)}: translated, but no longer in the page: {text}"
    path = tree.chinese_readme_path
    wanted_readme = chinese_readme(tree.readme, read_catalog(tree.catalog_path(README)))
    if not path.exists() or path.read_text(encoding="utf-8") != wanted_readme:
        yield f"{path.name}: differs from what README.md and its translation give"


def _faults(text: str, catalog: Catalog) -> Iterator[str]:
    message = catalog.get(text)
    if message is None:
        yield "not in the .po file"
    elif message.fuzzy:
        yield "changed (fuzzy)"
    elif not message.string:
        yield "not translated"
    else:
        yield from _differences(text, str(message.string))


def _differences(text: str, translation: str) -> Iterator[str]:
    """Yield what the translation lacks of the text, or has beyond it."""
    parts = {"code": _code, "links": _links, "placeholders": _placeholders}
    for name, find in parts.items():
        ours, theirs = find(text), find(translation)
        if ours != theirs:
            missing, added = _listed(ours - theirs), _listed(theirs - ours)
            yield f"{name} differ ({missing} missing, {added} added)"
    if lost := _numbers(text) - _numbers(translation):
        yield f"numbers differ ({_listed(lost)} missing)"


def _listed(found: Counter[str]) -> str:
    return ", ".join(sorted(found)) or "none"


def _code(text: str) -> Counter[str]:
    return Counter({match[2].strip() for match in CODE.finditer(text)})


def _links(text: str) -> Counter[str]:
    return Counter(match[1] or match[2] for match in LINK.finditer(CODE.sub("", text)))


def _placeholders(text: str) -> Counter[str]:
    return Counter(PLACEHOLDER.findall(CODE.sub("", text)))


def _numbers(text: str) -> Counter[str]:
    return Counter(set(NUMBER.findall(_words(text))))


if __name__ == "__main__":
    sys.exit(main())
