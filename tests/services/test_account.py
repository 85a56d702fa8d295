"""An ``imagetag`` connection, field by field."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.registry import find_service

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
    assert account.region == "ap-guangzhou"
    assert account.scenes == ()
    assert account.token is None
    assert account.credentials == "keys"
    assert account.role is None


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
        ("timeout_seconds", " ", 30.0),
        ("max_in_flight", "None", None),
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
        ("region", "ap-beijing", "ap-beijing"),
        ("region", " na-siliconvalley ", "na-siliconvalley"),
        ("region", "", "ap-guangzhou"),
        ("scenes", "", ()),
        ("scenes", [], ()),
        ("token", "", None),
        ("credentials", "keys", "keys"),
        ("credentials", "", "keys"),
        ("role", "", None),
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
NOT_SHARES: list[object] = [0, "0", -0.5, 1.01, "a half", True, [], "nan"]
NOT_FILES: list[object] = ["/no/such/file.pem", "/", 1, [], "a\x00b"]
WRONG = [
    *[("app_id", value) for value in ("abc", "12 34", 1.5, True, "1" * 21, [1], "١٢")],
    *[("bucket", value) for value in ("my bucket", "a&b", "é", ["b"])],
    *[("api", value) for value in ("Picture_Classify", 7, ["picture_classify"], {"a": 1})],
    *itertools.product(["requests_per_second", "price_per_thousand"], NOT_NUMBERS),
    *itertools.product(["max_in_flight", "timeout_seconds"], [*NOT_NUMBERS, 0, "0"]),
    ("max_in_flight", 1.5),
    *[("image_encoding", value) for value in ("gzip", 1, ["base64"])],
    *[("quota_conn_id", value) for value in ("two words", "a\nb", 5, ["redis_default"], True)],
    *itertools.product(["quota_fallback_share"], NOT_SHARES),
    *[("region", value) for value in ("Beijing", "ap beijing", "ap_beijing", "-", 5.5, ["ap-x"])],
    *[("scenes", value) for value in (5, {"WEB": 1}, ["WEB", 1], True)],
    *[("token", value) for value in (f"{SECRET} x", f"{SECRET}\nx", f"{SECRET}é")],
    *[("credentials", value) for value in ("role", 1, ["keys"], "Keys")],
    *[("role", value) for value in ("two words", "a\nb")],
    *itertools.product(["verify"], NOT_FILES),
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
    """A wrong value of any type of JSON is our error and repeats no password."""
    with pytest.raises(ConfigurationError) as caught:
        parse({name: value})
    assert "'my_labels'" in caught.value.message
    assert name in caught.value.message
    assert "extra" in caught.value.message
    assert SECRET not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("requests_per_second", -1, "a number from 0 (0 for no limit), not -1"),
        ("max_in_flight", "1.5", "a whole number from 1, not '1.5'"),
        ("timeout_seconds", 0, "a number of seconds above 0, not 0"),
        ("price_per_thousand", "many", "a number from 0, not 'many'"),
        ("quota_fallback_share", True, "a share above 0 and up to 1, not True"),
    ],
)
def test_a_wrong_number_says_which_ones_are_right(name, value, expected):
    """Connection, field, range and value are in the message."""
    with pytest.raises(ConfigurationError) as caught:
        parse({name: value})
    assert caught.value.message == f"Connection 'my_labels': {name} in extra must be {expected}."


def test_a_missing_app_id_is_named():
    """The AppID has no default."""
    with pytest.raises(ConfigurationError, match=r"'my_labels': app_id in extra is missing"):
        parse_account(**GOOD, extra={"api": "picture_classify"})


@pytest.mark.parametrize("app_id", [None, ""])
def test_the_interface_without_a_name(app_id):
    """It is the one that the vendor keeps; an AppID belongs to a connection of version 0.1."""
    assert parse_account(**GOOD, extra={"app_id": app_id}).api == "DetectLabelPro"
    assert parse_account(**GOOD, extra={"app_id": "1250000001"}).api == "picture_classify"


def test_an_unknown_api_lists_the_known_ones():
    """The message lists the right ones."""
    with pytest.raises(
        ConfigurationError, match="imagetag_detect, local, picture_classify, not 'x'"
    ):
        parse({"api": "x"})


def test_repr_shows_no_secret():
    """Key, key id and the proxy's password are not in the repr."""
    shown = repr(parse({"proxy": f"http://user:{SECRET}@proxy:3128"}))
    assert SECRET not in shown
    assert "AKIDlogin" not in shown
    assert "proxy:3128" not in shown
    assert "1250000001" in shown
    model = f"https://user:{SECRET}@models/a.onnx"
    assert SECRET not in repr(parse({"api": "local", "model": model, "classes": model}))


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


TIIA = {"api": "DetectLabelPro", "app_id": ""}
MACHINE = {**TIIA, "credentials": "cvm_role"}
ARN = "qcs::cam::uin/100000000001:roleName/labeller"


def parse_tiia(extra: dict[str, Any] | None = None, **fields: Any):
    """Parse a connection of TIIA with some of its fields replaced."""
    return parse({**TIIA, **(extra or {})}, **fields)


def test_tiia_needs_no_app_id():
    """Keys are enough; the endpoint is that of the product."""
    account = parse_tiia()
    assert account.app_id == ""
    assert account.endpoint == "https://tiia.tencentcloudapi.com"
    assert account.api == "DetectLabelPro"


@pytest.mark.parametrize(
    ("given", "scenes"),
    [
        ("WEB", ("WEB",)),
        (" web, news ,,WEB", ("WEB", "NEWS")),
        (["CAMERA", "album"], ("CAMERA", "ALBUM")),
    ],
)
def test_scenes_are_a_list_or_a_text_with_commas(given, scenes):
    """The form gives text; one that is named twice is asked for, and billed, once."""
    assert parse_tiia({"api": "DetectLabel", "scenes": given}).scenes == scenes


@pytest.mark.parametrize(
    "extra",
    [
        {"token": "temporary"},
        {"credentials": "keys"},
        {"region": "ap-shanghai"},
    ],
)
def test_what_goes_with_keys(extra):
    """Temporary keys are keys with a token."""
    account = parse_tiia(extra)
    assert (account.secret_id, account.secret_key) == ("AKIDlogin", SECRET)
    assert all(getattr(account, name) == value for name, value in extra.items())


@pytest.mark.parametrize(
    ("credentials", "role"),
    [("cvm_role", None), ("cvm_role", "labeller"), ("tke_oidc", None)],
)
def test_a_role_of_the_machine_needs_no_keys(credentials, role):
    """Nothing stands in the connection but where the keys come from."""
    account = parse_tiia(
        {"credentials": credentials, "role": role or ""}, login=None, password=None
    )
    assert (account.credentials, account.role) == (credentials, role)
    assert (account.secret_id, account.secret_key) == ("", "")


@pytest.mark.parametrize(
    ("extra", "fields", "words"),
    [
        ({}, {"login": None}, ["login", "missing"]),
        ({}, {"password": None}, ["password", "missing"]),
        ({"credentials": "assume_role"}, {}, ["role in extra is missing", "ARN"]),
        ({"credentials": "assume_role", "role": ARN}, {"login": None}, ["login", "missing"]),
        ({"role": ARN}, {}, ["role", "credentials"]),
        ({"role": ARN, "credentials": "tke_oidc"}, {}, ["role", "credentials"]),
        ({"token": "temporary", "credentials": "cvm_role"}, {}, ["token", "cvm_role"]),
        ({"scenes": "WEB,MOON", "api": "DetectLabel"}, {}, ["scenes", "NEWS", "MOON"]),
        ({}, {"host": "recognition.image.myqcloud.com"}, ["host"]),
        ({}, {"schema": "http"}, ["schema", "https"]),
        (MACHINE | {"quota_conn_id": "redis"}, {"login": None}, ["app_id", "quota"]),
    ],
)
def test_what_tiia_cannot_use_is_named(extra, fields, words):
    """A field that is missing, or would be ignored, is an error that names the change to make."""
    with pytest.raises(ConfigurationError) as caught:
        parse_tiia(extra, **fields)
    assert caught.value.message.startswith("Connection 'my_labels': ")
    assert caught.value.message.endswith(".")
    assert all(word in caught.value.message for word in words)
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("api", ["picture_classify", "imagetag_detect"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("token", SECRET), ("credentials", "cvm_role"), ("role", "labeller")],
)
def test_what_the_older_service_cannot_use_is_named(api, name, value):
    """It knows neither temporary keys nor roles, and does not ignore them in silence."""
    with pytest.raises(ConfigurationError, match=f"{name} in extra has no use") as caught:
        parse({"api": api, name: value})
    assert SECRET not in caught.value.message


def test_the_older_service_is_not_at_the_newer_ones_host():
    """The message names the change to make."""
    with pytest.raises(ConfigurationError, match="host is not that of picture_classify"):
        parse(host="tiia.tencentcloudapi.com")


def test_repr_shows_no_token():
    """Other values of the extra are not in it either."""
    shown = repr(parse_tiia({"token": f"{SECRET}token", "of_others": f"{SECRET}2"}))
    assert SECRET not in shown


def test_the_quota_of_an_account_without_app_id():
    """Its name tells accounts apart by role or key, which cannot be read from it."""
    accounts = [
        parse_tiia(),
        parse_tiia(login="AKIDother"),
        parse_tiia({"credentials": "assume_role", "role": ARN}),
        parse_tiia({"api": "DetectLabel"}),
        parse_tiia({"app_id": "1250000001"}),
    ]
    names = [account.quota_name for account in accounts]
    assert len(set(names)) == len(accounts)
    assert not any(secret in name for name in names for secret in ("AKID", "labeller", SECRET))
    assert all(name.endswith(f"/{a.api}") for name, a in zip(names, accounts, strict=True))
    assert parse_tiia(password="another", extra={"token": "t"}).quota_name == names[0]


def test_machines_with_a_role_share_a_quota_by_app_id():
    """They have no key to be told by, so the connection names the account."""
    account = parse(MACHINE | {"quota_conn_id": "redis", "app_id": "7"}, login=None, password=None)
    assert account.quota_name == "7@tiia.tencentcloudapi.com/DetectLabelPro"
    role = MACHINE | {"quota_conn_id": "redis", "role": "labeller"}
    assert parse(role, login=None, password=None).owner == "labeller"


@pytest.mark.parametrize("api", ["picture_classify", "imagetag_detect", "DetectLabelPro"])
def test_scenes_may_stand_in_a_connection_without_scenes(api):
    """So that the api alone need be changed to try another one."""
    assert parse({"api": api, "scenes": "WEB,MOON"}).scenes == ("WEB", "MOON")
