"""The method that refuses accounts keeps its name of version 0.1.0 for services of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Service
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.recognition.picture_classify import PictureClassify

ACCOUNT = Account("", "", "")


class Base(Service):
    """A whole service."""

    api = "toy"
    host = "toy.example"
    required = ("password",)
    limits: Any = None
    build: Any = None
    read: Any = None
    build_probe: Any = None
    check_probe: Any = None


class Old(Base):
    """Overrides the method by its old name."""

    @classmethod
    def complaints(cls, account: Account) -> Iterator[str]:
        """Add one to those of the base."""
        yield from super().complaints(account)
        yield "old"


class New(Base):
    """Overrides the method by its new name."""

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Add one to those of the base."""
        yield from super().validation_errors(account)
        yield "new"


class NewBelowOld(Old):
    """Extends a class with the old name."""

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Add one to those of the base."""
        yield from super().validation_errors(account)
        yield "new"


class OldBelowNew(New):
    """Extends a class with the new name."""

    @classmethod
    def complaints(cls, account: Account) -> Iterator[str]:
        """Add one to those of the base."""
        yield from super().complaints(account)
        yield "old"


class OldMixin:
    """Is no service by itself."""

    @classmethod
    def complaints(cls, account: Account) -> Iterator[str]:
        """Add one to those of the next class."""
        yield from super().complaints(account)  # type: ignore[misc]
        yield "mixin"


class WithMixin(OldMixin, New):
    """Takes the method from a class that is no service."""


class Both(Base):
    """Runs with either version of this package."""

    @classmethod
    def complaints(cls, account: Account) -> Iterator[str]:
        """Do as the new method."""
        return cls.validation_errors(account)

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Have one."""
        yield "both"


class BelowBoth(Both):
    """Overrides nothing."""


MISSING = "password (the SecretKey) is missing. Set it in the connection"


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (Base, [MISSING]),
        (Old, [MISSING, "old"]),
        (New, [MISSING, "new"]),
        (NewBelowOld, [MISSING, "old", "new"]),
        (OldBelowNew, [MISSING, "new", "old"]),
        (WithMixin, [MISSING, "new", "mixin"]),
        (Both, ["both"]),
        (BelowBoth, ["both"]),
    ],
)
def test_both_names_are_one_method(service, expected):
    """Whichever name a class defines or asks for, each override is called once."""
    assert list(service.validation_errors(ACCOUNT)) == expected
    assert list(service.complaints(ACCOUNT)) == expected
    assert list(service(ACCOUNT).validation_errors(ACCOUNT)) == expected


def test_one_of_ours_can_be_extended_by_the_old_name():
    """The built-in service's own reasons are not lost."""

    class Extended(PictureClassify):
        @classmethod
        def complaints(cls, account: Account) -> Iterator[str]:
            yield from super().complaints(account)
            yield "more"

    account = Account("1", "id", "key", token="t")
    assert [*PictureClassify.validation_errors(account), "more"] == [
        *Extended.validation_errors(account)
    ]


def test_a_connection_is_refused_by_the_old_name():
    """The parser asks by the new name and finds an override by the old one."""
    with pytest.raises(ConfigurationError, match=r"^Connection 'c': old\.$"):
        parse_account(
            conn_id="c",
            login=None,
            password="key",
            host=None,
            port=None,
            schema=None,
            extra={},
            find_service=lambda api: Old,
        )
