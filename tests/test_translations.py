"""The Chinese translation: the check finds each fault, and the pages as they are pass."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")

# MyST uses what Sphinx will drop.
pytestmark = pytest.mark.filterwarnings("ignore:'myst_parser.* is deprecated")

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "translations.py"))
PAGES = SCRIPT["PAGES"]
Tree = SCRIPT["Tree"]

PAGE = """# Quota

Set `requests_per_second` to 20, see [the fields](page.md).

| field | meaning |
|---|---|
| `api` | the interface |
"""
README = """# Labels

[中文](README.zh-CN.md)

Labels from
Airflow, [how](#labels).

- one [page](docs/page.md) of
  `docs`

| a | cell |
|---|---|
| cell | `code` |

```bash
Labels from Airflow.
```
"""
CHINESE = {
    "Quota": "配额",
    "Set `requests_per_second` to 20, see [the fields](page.md).": (
        "将 `requests_per_second` 设为 20，见[字段](page.md)。"
    ),
    "field": "字段",
    "meaning": "含义",
    "the interface": "接口",
    "Labels": "标签",
    "Labels from Airflow, [how](#labels).": "来自 Airflow 的标签，[方法](#labels)。",
    "one [page](docs/page.md) of `docs`": "`docs` 中的一个[页面](docs/page.md)",
    "a": "甲",
    "cell": "单元格",
}


@pytest.fixture
def tree(tmp_path):
    """A checkout with one page and a README, both translated."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "conf.py").write_text('project = "labels"\n')
    (tmp_path / "docs" / "page.md").write_text(PAGE)
    (tmp_path / "README.md").write_text(README)
    tree = Tree(tmp_path, ("page",))
    run("update", tree)
    for path in (tree.catalog_path("page"), tree.catalog_path("README")):
        path.write_text(translated(path.read_text()))
    assert run("update", tree) == 0
    return tree


def translated(catalog):
    """Fill in the texts of a .po file that has none."""

    def fill(match):
        text = match[1]
        return f'msgid "{text}"\nmsgstr "{CHINESE[text]}"'

    return re.sub(r'msgid "(.+)"\nmsgstr ""', fill, catalog)


def run(action, tree):
    """Run the script and return its exit code."""
    return SCRIPT["main"]([action], tree)


def faults(tree, capsys):
    """Check the tree, which must fail, and return the faults."""
    capsys.readouterr()
    assert run("check", tree) == 1
    *found, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"{len(found)} problems. Run `python scripts/translations.py update`")
    return found


def replace(path, old, new):
    """Replace a text that a file has once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_complete_translation_passes(tree, capsys):
    """Nothing is said of pages that are translated in full."""
    capsys.readouterr()
    assert run("check", tree) == 0
    assert capsys.readouterr().out == ""


def test_a_text_that_is_new_in_the_page_is_found(tree, capsys):
    """The check names the page and the text, before the .po file knows of it and after."""
    with (tree.root / "docs" / "page.md").open("a") as file:
        file.write("\nNothing else.\n")
    assert faults(tree, capsys) == ["docs/page.md: not in the .po file: Nothing else."]
    assert run("update", tree) == 1
    assert faults(tree, capsys) == ["docs/page.md: not translated: Nothing else."]


def test_a_text_that_changed_is_found(tree, capsys):
    """Its old translation is kept for the translator, and does not count."""
    replace(tree.root / "docs" / "page.md", "to 20", "to 40")
    assert run("update", tree) == 1
    changed = "Set `requests_per_second` to 40, see [the fields](page.md)."
    assert faults(tree, capsys) == [f"docs/page.md: changed (fuzzy): {changed}"]
    assert "设为 20" in tree.catalog_path("page").read_text()


def test_a_translation_of_a_text_that_is_gone_is_found(tree, capsys):
    """The check names it, and an update takes it out."""
    replace(tree.root / "docs" / "page.md", "| `api` | the interface |\n", "| `api` | |\n")
    gone = "docs/page.md: translated, but no longer in the page: the interface"
    assert faults(tree, capsys) == [gone]
    assert run("update", tree) == 0
    assert "the interface" not in tree.catalog_path("page").read_text()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("将 `requests_per_second`", "将 `request_per_second`", "code differ"),
        ("](page.md)。", "](pages.md)。", "links differ"),
        ("设为 20", "设为 40", "numbers differ (20 missing)"),
        ("设为 20", "设为 20 {count}", "placeholders differ (none missing, {count} added)"),
    ],
    ids=["code", "link", "number", "placeholder"],
)
def test_a_translation_with_other_code_or_links_or_numbers_is_found(tree, capsys, old, new, fault):
    """Code, links, placeholders and numbers of a text are those of its translation."""
    replace(tree.catalog_path("page"), old, new)
    (found,) = faults(tree, capsys)
    assert found.startswith(f"docs/page.md: {fault}")


def test_the_chinese_readme_is_the_readme_with_its_texts_replaced(tree, capsys):
    """Structure, code and anchors are those of the README; the check finds one that was edited."""
    path = tree.root / "README.zh-CN.md"
    assert path.read_text() == (
        '# <a id="labels"></a>标签\n\n[English](README.md)\n\n'
        "来自 Airflow 的标签，[方法](#labels)。\n\n"
        "- `docs` 中的一个[页面](docs/page.md)\n\n"
        "| 甲 | 单元格 |\n|---|---|\n| 单元格 | `code` |\n\n"
        "```bash\nLabels from Airflow.\n```\n"
    )
    replace(path, "来自", "出自")
    made = "README.zh-CN.md: differs from what README.md and its translation give"
    assert faults(tree, capsys) == [made]


def test_an_update_changes_nothing_where_nothing_changed(tree):
    """The files have neither times nor line numbers."""
    paths = [tree.catalog_path("page"), tree.catalog_path("README"), tree.root / "README.zh-CN.md"]
    before = [path.read_text() for path in paths]
    replace(tree.root / "docs" / "page.md", "# Quota\n", "\n\n# Quota\n")
    assert run("update", tree) == 0
    assert [path.read_text() for path in paths] == before


def test_the_translation_of_the_documentation_is_complete(capsys):
    """No English page has moved on without its Chinese one."""
    code = run("check", Tree(ROOT, PAGES))
    assert code == 0, capsys.readouterr().out


def test_the_chinese_pages_build_without_a_warning(tmp_path):
    """Sphinx finds as many links in a translation as in its text, and shows the page in Chinese."""
    shutil.copytree(ROOT / "docs" / "locale", tmp_path / "locale")
    settings = {
        "language": "zh_CN",
        "locale_dirs": str(tmp_path / "locale"),
        "extensions": "myst_parser",
        "include_patterns": ",".join(f"{page}.md" for page in PAGES),
        "root_doc": PAGES[0],
        # Of the other pages only the whole site knows.
        "suppress_warnings": "myst.xref_missing,toc.excluded,toc.not_readable",
    }
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    for name, value in settings.items():
        command += ["-D", f"{name}={value}"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'lang="zh-CN"' in (tmp_path / "html" / "quota.html").read_text()
    assert re.search(r"<h1>配额<", (tmp_path / "html" / "quota.html").read_text())
