"""The rule in Python and the rule in SQL select the same images, on three databases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from databases import API, Database, failed, tagged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import SCALE, property_test

from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.safety.uris import BLANKS, is_blank
from airflow_imagetag.selection.rules import Need, Retag, Rule, Status, StoredState
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import OpenStore, SqlLabelStore

URI = "https://shop/a.jpg"
SOURCE = SqlImages("warehouse", table="products", version="version")
STORE = SqlLabelStore("warehouse", "product_labels")

BLANK_TEXTS = ["\t", "\n", "\u00a0", "\u3000 \r", "\u2003\u2028", "\u200b\ufeff", "\x1f\x85"]

# PostgreSQL keeps no zero byte.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
# Close to each other, since two texts of any characters are rarely equal.
versions = st.sampled_from(["", "v1", "V1", "v1 ", "v2", "\u00e4", "a\u0308"]) | texts
EARLY, LATE = (datetime(2026, 7, 1, hour, tzinfo=UTC) for hour in (12, 13))


def state(
    version: str, status: Status, has_uri: bool, next_try_at: datetime | None, tries: int
) -> StoredState:
    """Return a state that a store may hold: only an image without an answer is tried again."""
    if status in (Status.TAGGED, Status.FAILED):
        return StoredState(version, status, has_uri)
    at = next_try_at if status is Status.WAITING else None
    return StoredState(version, status, has_uri, at, tries, EARLY)


moments = st.sampled_from([None, EARLY, LATE])
states = st.builds(
    state, versions, st.sampled_from(Status), st.booleans(), moments, st.integers(1, 9)
)
rules = st.builds(
    Rule,
    st.sampled_from(Retag),
    st.booleans(),
    st.booleans(),
    moments,
    st.none() | st.sampled_from(Need),
)


@dataclass(frozen=True)
class Case:
    """One image, in the store and in the source.

    :param key: names it in both.
    :param stored: its state in the store; None if the store does not hold it.
    :param version: its version in the source; None for NULL.
    :param uri: its URI in the source; None and blanks are no URI.
    """

    key: str
    stored: StoredState | None
    version: str | None
    uri: str | None

    @property
    def has_uri(self) -> bool:
        """Whether the source has a URI of it."""
        return not is_blank(self.uri or "")

    def outcome(self, stored: StoredState) -> TagResult | Failure:
        """Return an outcome that leaves the image in a state."""
        uri = URI if stored.has_uri else None
        if stored.status is Status.TAGGED:
            return tagged(self.key, "label", uri=uri, version=stored.version)
        if stored.status is Status.FAILED:
            return failed(self.key, uri=uri, version=stored.version)
        return failed(
            self.key,
            final=False,
            uri=uri,
            version=stored.version,
            has_given_up=stored.status is Status.GAVE_UP,
            next_try_at=stored.next_try_at,
            tries=stored.tries,
            first_failed_at=stored.first_failed_at,
        )


cases = st.lists(
    st.builds(
        Case,
        texts.filter(bool),
        st.none() | states,
        st.none() | versions,
        st.sampled_from([None, "", "  ", URI, *BLANK_TEXTS]),
    ),
    max_size=40,
    unique_by=lambda case: case.key,
)


@pytest.fixture(params=["postgres", "sqlite", "mariadb"])
def tables(request: pytest.FixtureRequest) -> Database:
    """Give a database with an empty source and an empty store."""
    database: Database = request.getfixturevalue(request.param)
    kind = "varchar(99) COLLATE utf8mb4_bin" if database.is_mysql else "varchar(99)"
    database.run(f"CREATE TABLE products (id {kind}, image_url text, version text)")
    with STORE.open(API):
        return database


def refill(database: Database, opened: OpenStore, found: list[Case]) -> None:
    """Replace the rows of source and store."""
    for table in ("products", "product_labels", "product_labels_images"):
        database.run(f"DELETE FROM {table}")
    opened.write([case.outcome(case.stored) for case in found if case.stored is not None])
    rows = [{"id": case.key, "uri": case.uri, "version": case.version} for case in found]
    if rows:
        database.run("INSERT INTO products VALUES (:id, :uri, :version)", *rows)


# Each example replaces all rows of the database.
@settings(
    property_test,
    max_examples=int(15 * SCALE),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(found=cases, rule=rules)
def test_the_condition_selects_the_images_that_the_rule_selects(
    tables: Database, found: list[Case], rule: Rule
):
    """Entries and images of a push-down are those for which ``is_pending`` is true."""
    with STORE.open(API) as opened:
        refill(tables, opened, found)
        assert dict(opened.known([case.key for case in found])) == {
            case.key: case.stored for case in found if case.stored is not None
        }
        condition = opened.condition(rule)
        assert condition is not None
        push_down = SOURCE.push_down
        entries = {entry.key for entry in push_down.entries(condition, shard=None, limit=None)}
        images = {image.key for image in push_down.images(condition, window=None, limit=None)}
    new = {
        case.key
        for case in found
        if rule.is_pending(case.stored, version=case.version, has_uri=case.has_uri)
    }
    assert entries == new
    assert images == {case.key for case in found if case.key in new and case.has_uri}


def test_every_blank_is_empty_in_each_database(tables: Database):
    """A URI of blanks is no URI, for the rule, the source and the sensor alike."""
    state = StoredState("", Status.FAILED, has_uri=False)
    found = [Case(f"U+{ord(blank):04X}", state, "", blank * 2) for blank in BLANKS]
    assert not any(case.has_uri for case in found)
    with STORE.open(API) as opened:
        refill(tables, opened, found)
        condition = opened.condition(Rule())
        assert condition is not None
        entries = list(SOURCE.push_down.entries(condition, shard=None, limit=None))
        images = list(SOURCE.images())
    assert entries == images == []


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3", "utf8mb4"])
@pytest.mark.parametrize("collation", ["general_ci", "unicode_ci", "bin"])
def test_tables_of_other_collations(mariadb: Database, charset: str, collation: str):
    """Source and store may have different ones, and keys still compare letter by letter."""
    collation = "swedish_ci" if (charset, collation) == ("latin1", "unicode_ci") else collation
    mariadb.run(
        "CREATE TABLE products (id varchar(99), image_url text, version text)"
        f" CHARACTER SET {charset} COLLATE {charset}_{collation}"
    )
    rows = [{"id": key} for key in ("a", "A", "a ", "\u00e4", "b")]
    mariadb.run("INSERT INTO products VALUES (:id, 'https://x', 'v1')", *rows)
    with STORE.open(API) as opened:
        opened.write([tagged("a", "x", version="v1"), tagged("b", "x", version="V1")])
        condition = opened.condition(Rule())
        assert condition is not None
        new = [entry.key for entry in SOURCE.push_down.entries(condition, shard=None, limit=None)]
    assert sorted(new) == ["A", "a ", "b", "\u00e4"]
