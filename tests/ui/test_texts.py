"""The words of the pages, in each language."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

from airflow_imagetag import ui
from airflow_imagetag.selection.rules import Status
from airflow_imagetag.stores.runs import RunOutcome
from airflow_imagetag.ui.pages import STATUSES
from airflow_imagetag.ui.render import shown
from airflow_imagetag.ui.texts import LANGUAGES, preferred_language
from airflow_imagetag.ui.thumbnails import NoPicture

FOLDER = Path(ui.__file__).parent
HAN = re.compile(r"[\u4e00-\u9fff]")
SAME = {"dag", "other_language"}
"""Words that are not Chinese in Chinese."""


def test_each_language_has_every_text():
    """The same names and the same places for numbers; no text is left in the other language."""
    english, chinese = LANGUAGES["en"], LANGUAGES["zh"]
    assert list(english) == list(chinese)
    for name in english:
        assert english[name].strip()
        assert _places(english[name]) == _places(chinese[name])
        if name not in SAME:
            assert HAN.search(chinese[name]), name
            assert not HAN.search(english[name]), name


def _places(text: str) -> list[str]:
    return sorted(str(name) for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_each_state_has_a_text():
    """Statuses, outcomes of runs and reasons for no picture."""
    names = {f"picture_{reason.value}" for reason in NoPicture}
    names |= {f"run_{outcome.value}" for outcome in RunOutcome}
    names |= {*STATUSES, *(status.value for status in Status)}
    assert names <= set(LANGUAGES["en"])


def test_no_text_stands_in_a_template():
    """What a reader sees comes from the words, so it is there in both languages."""
    for path in sorted((FOLDER / "templates").glob("*.html")):
        template = re.sub(r"\{[{%].*?[%}]\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"[A-Za-z]{2}", re.sub(r"<[^>]*>", "", template)), path.name
    used = {
        name
        for path in (FOLDER / "templates").glob("*.html")
        for name in re.findall(r'\bt(?:\.|\[")(\w+)', path.read_text(encoding="utf-8"))
    }
    methods = {"get", "picture_"}
    assert used - methods <= set(LANGUAGES["en"])


def test_the_language_is_that_of_the_browser():
    """The first that the pages have; English for others."""
    for header, language in {
        "zh-CN,zh;q=0.9,en;q=0.8": "zh",
        "en-GB,zh;q=0.5": "en",
        "fr,zh": "zh",
        "fr": "en",
        "": "en",
    }.items():
        assert preferred_language(header) == language


def test_a_text_stays_in_its_place():
    """Marks of direction, ends of lines and piles of accents are replaced; writing is not."""
    for kept in ("Café", "Cafe\u0301", "น้ำ", "ṩ̂́", "猫", "قطة", "=1+1"):
        assert shown(kept) == kept
    assert shown("a\u202eb\0c\u2028d") == "a\ufffdb\ufffdc\ufffdd"
    assert shown("\u0301a") == "\ufffda"
    assert shown("a" + "\u0301" * 9) == "a" + "\u0301" * 4 + "\ufffd" * 5
    assert shown("x" * 400) == "x" * 300 + "…"
    assert shown(None) == ""
