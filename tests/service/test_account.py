"""An ``imagetag`` connection, field by field."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.service.account import parse_account
from airflow_imagetag.service.registry import find_service

SECRET = "5ecre7KeyOfTheAccount"
GOOD: dict[str, Any] = {
    "conn_id": "my_labels",
    "login": "AKIDlogin",
    "password": SECRET,
    "host": None,
    "port": None,
    "schema": None,
    "find_service": find_service,
}


def parse(extra: dict[str, Any] | None = None, **fields: Any):
    """Parse a good connection with some of its fields replaced."""
    return parse_account(**{**GOOD, **fields, "extra": {"app_id": "1250000001", **(extra or {})}})


def test_defaults():
    """A key, its id and the AppID are enough; all else has the documented default."""
    account = parse()
    assert account.app_id == "1250000001"
    assert account.secret_id == "AKIDlogin"
    assert account.secret_key == SECRET
    assert account.endpoint == "https://recognition.image.myqcloud.com"
    assert account.bucket == ""
    assert account.api == "picture_classify"
    assert account.requests_per_second == 20
    assert account.max_in_flight is None
    assert account.timeout_seconds == 30
    assert account.price_per_thousand is None
    assert account.image_encoding == "multipart"
    assert account.proxy is None
    assert account.verify is True
    assert account.quota_conn_id is None
    assert account.quota_fallback_share is None


@pytest.mark.parametrize(
    ("host", "port", "schema", "endpoint"),
    [
        (None, None, None, "https://recognition.image.myqcloud.com"),
        ("", 0, "", "https://recognition.image.myqcloud.com"),
        (None, 8443, "http", "http://recognition.image.myqcloud.com:8443"),
        ("gateway", None, None, "https://gateway"),
        ("gateway", 8080, "http", "http://gateway:8080"),
        ("gateway:8080", None, None, "https://gateway:8080"),
        ("gateway:8080", 8080, "HTTPS", "https://gateway:8080"),
        ("http://gateway", None, None, "http://gateway"),
        ("HTTP://Gateway/", None, "http", "http://gateway"),
        ("https://gateway:8443", 8443, "https", "https://gateway:8443"),
        (" gateway ", None, None, "https://gateway"),
        ("127.0.0.1", 1234, "http", "http://127.0.0.1:1234"),
        ("[::1]:1234", None, "http", "http://[::1]:1234"),
        ("http://[::1]", 1234, None, "http://[::1]:1234"),
        ("under_score.example", None, None, "https://under_score.example"),
    ],
)
def test_precedence_of_the_endpoint(host, port, schema, endpoint):
    """A URL in host goes first, then the fields, then https and the scheme's own port."""
    assert parse(host=host, port=port, schema=schema).endpoint == endpoint


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"host": "https://gateway", "schema": "http"}, "scheme"),
        ({"host": "gateway:1", "port": 2}, "port"),
        ({"host": "ftp://gateway"}, "schema"),
        ({"schema": "gopher"}, "schema"),
        ({"host": "https://gateway/path"}, "path"),
        ({"host": "gateway?a=b"}, "path"),
        ({"host": "gateway#a"}, "path"),
        ({"host": f"https://user:{SECRET}@gateway"}, "credentials"),
        ({"host": f"{SECRET}@gateway"}, "credentials"),
        ({"host": "gate way"}, "host"),
        ({"host": "gateway:port"}, "host"),
        ({"host": "gateway:99999"}, "host"),
        ({"host": ":80"}, "host"),
        ({"host": "[::1"}, "host"),
        ({"host": "gate\nway"}, "host"),
        ({"host": "https://"}, "host"),
        ({"login": None}, "login"),
        ({"login": ""}, "login"),
        ({"login": " "}, "login"),
        ({"login": f"{SECRET} x"}, "login"),
        ({"login": f"{SECRET}&f=1"}, "login"),
        ({"password": None}, "password"),
        ({"password": ""}, "password"),
        ({"password": f"{SECRET}\nx"}, "password"),
        ({"password": f"{SECRET}é"}, "password"),
    ],
)
def test_a_wrong_field_is_named(fields, word):
    """A missing or malformed field is an error that names connection and field, not the value."""
    with pytest.raises(ConfigurationError) as caught:
        parse(**fields)
    assert "'my_labels'" in caught.value.message
    assert word in caught.value.message
    assert SECRET not in caught.value.message


def test_login_and_password_lose_blanks_at_their_ends():
    """A blank that came along when a key was copied does no harm."""
    account = parse(login=" AKIDlogin\n", password=f"\t{SECRET} ")
    assert (account.secret_id, account.secret_key) == ("AKIDlogin", SECRET)


@pytest.mark.parametrize(
    ("name", "value", "attribute"),
    [
        ("app_id", "200001", "200001"),
        ("app_id", 200001, "200001"),
        ("app_id", " 200001 ", "200001"),
        ("bucket", "newbucket", "newbucket"),
        ("bucket", "", ""),
        ("api", "imagetag_detect", "imagetag_detect"),
        ("api", "", "picture_classify"),
        ("requests_per_second", "7.5", 7.5),
        ("requests_per_second", 100, 100.0),
        ("requests_per_second", 0, None),
        ("requests_per_second", "0", None),
        ("requests_per_second", None, 20.0),
        ("max_in_flight", "64", 64),
        ("max_in_flight", 8.0, 8),
        ("timeout_seconds", "5", 5.0),
        ("price_per_thousand", 2.5, 2.5),
        ("price_per_thousand", 0, 0.0),
        ("image_encoding", "base64", "base64"),
        ("proxy", "http://user:pw@proxy.example:3128", "http://user:pw@proxy.example:3128"),
        ("proxy", "", None),
        ("quota_conn_id", " redis_default ", "redis_default"),
        ("quota_conn_id", "", None),
        ("quota_fallback_share", 0.25, 0.25),
        ("quota_fallback_share", "1", 1.0),
        ("quota_fallback_share", "", None),
        ("verify", True, True),
        ("verify", False, False),
        ("verify", "False", False),
        ("verify", "true", True),
        ("verify", "", True),
        ("verify", __file__, __file__),
    ],
)
def test_a_good_extra(name, value, attribute):
    """Numbers may come as text, since the connection form gives text; empty is as missing."""
    found = getattr(parse({name: value}), name)
    assert found == attribute
    assert type(found) is type(attribute)


NOT_NUMBERS = ["many", "nan", "inf", "-inf", True, [], {}, "1,5", -1, "-0.5", 10**400, float("nan")]
WRONG = [
    *[("app_id", value) for value in (None, "", "abc", "12 34", 1.5, True, "1" * 21, [1], "١٢")],
    *[("bucket", value) for value in ("my bucket", "a&b", "é", ["b"])],
    *[("api", value) for value in ("Picture_Classify", 7, ["picture_classify"], {"a": 1})],
    *itertools.product(["requests_per_second", "price_per_thousand"], NOT_NUMBERS),
    *itertools.product(["max_in_flight", "timeout_seconds"], [*NOT_NUMBERS, 0, "0"]),
    ("max_in_flight", 1.5),
    *[("image_encoding", value) for value in ("gzip", 1, ["base64"])],
    *[("quota_conn_id", value) for value in ("two words", "a\nb", 5, ["redis_default"], True)],
    *[("quota_fallback_share", value) for value in (0, "0", -0.5, 1.01, "a half", True, [], "nan")],
    *[("verify", value) for value in ("/no/such/file.pem", "/", 1, [], "a\x00b")],
    *[
        ("proxy", value)
        for value in (
            f"socks5://user:{SECRET}@proxy:1080",
            f"user:{SECRET}@proxy:3128",
            "proxy:3128",
            f"http://user:{SECRET}@",
            f"http://user:{SECRET}@[proxy",
            f"http://user:{SECRET}@exa\u2100mple:3128",
            f"http://user:{SECRET}@proxy:port",
            f"http://user:{SECRET}/x@proxy",
            "http://proxy:0",
            5,
        )
    ],
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda item: repr(item)[:40])
def test_a_wrong_extra_is_named(name, value):
    """Whatever JSON holds for a field, a wrong value is our error and repeats no password."""
    with pytest.raises(ConfigurationError) as caught:
        parse({name: value})
    assert "'my_labels'" in caught.value.message
    assert name in caught.value.message
    assert "extra" in caught.value.message
    assert SECRET not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_missing_app_id_is_named():
    """The AppID has no default."""
    with pytest.raises(ConfigurationError, match=r"'my_labels': app_id in extra is missing"):
        parse_account(**GOOD, extra={})


def test_an_unknown_api_lists_the_known_ones():
    """The message says what would be right."""
    with pytest.raises(ConfigurationError, match="imagetag_detect, picture_classify, not 'x'"):
        parse({"api": "x"})


def test_repr_shows_no_secret():
    """Key, key id and the proxy's password are not in the repr."""
    shown = repr(parse({"proxy": f"http://user:{SECRET}@proxy:3128"}))
    assert SECRET not in shown
    assert "AKIDlogin" not in shown
    assert "proxy:3128" not in shown
    assert "1250000001" in shown


def test_each_account_and_interface_has_a_quota_of_its_own():
    """The name holds AppID, host and interface, and nothing that is secret."""
    names = {
        parse(extra, host=host).quota_name
        for host in (None, "http://gateway:8080")
        for extra in ({}, {"api": "imagetag_detect"}, {"app_id": "200001"})
    }
    assert len(names) == 6
    assert "1250000001@recognition.image.myqcloud.com/picture_classify" in names
    assert "200001@gateway:8080/picture_classify" in names


def test_the_same_account_has_the_same_quota_whatever_else_differs():
    """Two connections with different keys, paces or proxies share it."""
    other = parse(
        {"max_in_flight": 3, "requests_per_second": 5, "proxy": f"http://u:{SECRET}@proxy:3128"},
        login="AKIDother",
        password=SECRET + "2",
    )
    assert other.quota_name == parse().quota_name
    assert SECRET not in other.quota_name


def test_the_name_of_a_quota_fits_into_a_column():
    """However long the host's name is."""
    assert len(parse(host="h" * 250).quota_name) <= 200
