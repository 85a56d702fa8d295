"""URIs and messages as logs, outputs and errors show them."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import property_test

from airflow_imagetag.models import Image
from airflow_imagetag.safety.redaction import (
    _SECRET_NAMES,
    output_uri,
    redact,
    redact_text,
    storable_name,
    without_secrets,
)
from airflow_imagetag.safety.uris import MAX_NAME_CHARACTERS

HOST = "https://bucket.example/photos/cat.jpg"
SECRET = "5ecre7"
PRESIGNED = {
    "AWS version 4": (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20200101%2Feu%2Fs3%2Faws4_request"
        f"&X-Amz-Date=20200101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host"
        f"&X-Amz-Security-Token={SECRET}&X-Amz-Signature={SECRET}"
    ),
    "AWS version 4, lower case": f"x-amz-signature={SECRET}&x-amz-credential={SECRET}",
    "AWS version 2": f"AWSAccessKeyId=AKID&Expires=1577836800&Signature={SECRET}%3D",
    "CloudFront": f"Expires=1&Policy={SECRET}&Signature={SECRET}&Key-Pair-Id=K1",
    "Google version 4": (
        "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%40b&X-Goog-Date=1"
        f"&X-Goog-Expires=60&X-Goog-SignedHeaders=host&X-Goog-Signature={SECRET}"
    ),
    "Google version 2": f"GoogleAccessId=a%40b&Expires=1&Signature={SECRET}",
    "Azure": (
        "sv=2022-11-02&ss=b&srt=o&sp=r&se=2020-01-01T00%3A00%3A00Z&st=2020&spr=https&sip=1.2.3.4"
        f"&sr=b&skoid=1&sktid=2&skt=3&ske=4&sks=b&skv=5&sig={SECRET}%3D"
    ),
    "COS": (
        "q-sign-algorithm=sha1&q-ak=AKID&q-sign-time=1;2&q-key-time=1;2&q-header-list=host"
        f"&q-url-param-list=&q-signature={SECRET}&x-cos-security-token={SECRET}"
    ),
    "COS, old": f"sign={SECRET}",
    "OSS": f"OSSAccessKeyId=LTAI&Expires=1&Signature={SECRET}&security-token={SECRET}",
    "OSS version 4": f"x-oss-credential=LTAI&x-oss-signature={SECRET}",
    "a token": f"access_token={SECRET}",
    "a name in percents": f"X%2DAmz%2DSignature={SECRET}",
}

SECRET_NAMES = [
    *("access_token", "api_key", "apikey", "auth", "authorization", "password", "secret", "token"),
    *("sig", "sign", "signature", "security-token", "Token", "SIGNATURE"),
    *("X-Amz-Signature", "x-goog-credential", "x-cos-security-token", "x-oss-signature", "q-ak"),
]

# Pieces that parsers stumble over, and plain ones.
PIECES = (
    *("http", "HTTPS", "s3", "://", "//", "/", "?", "&", "=", "#", "@", ":", ";", "[", "]", "."),
    *("%26", "%3D", "%3F", "&amp;", "\\u0026", "sig", "token", "X-Amz-Signature", "id", "user"),
    *("x", " ", "+", "'", '"', "\n", "\t", "\x00", "\u2100", "\ud800", "***"),
)
pieces = st.lists(st.sampled_from(PIECES), max_size=15).map("".join)
texts = st.one_of(pieces, st.text(st.characters(), max_size=40))
plain = st.text(string.ascii_letters + string.digits + "-_.~%!$'()*,;: é", max_size=12)


@pytest.mark.parametrize("query", PRESIGNED.values(), ids=PRESIGNED)
def test_a_presigned_query_is_not_shown(query):
    """Neither the signature nor its companions are left."""
    assert redact(f"{HOST}?{query}") == HOST


@pytest.mark.parametrize("query", PRESIGNED.values(), ids=PRESIGNED)
def test_other_parameters_stay_beside_a_signature(query):
    """They may tell two images apart, before and after the signature."""
    assert redact(f"{HOST}?id=7&{query}&versionId=3") == f"{HOST}?id=7&versionId=3"


@pytest.mark.parametrize(
    "uri",
    [
        HOST,
        f"{HOST}?id=7",
        f"{HOST}?v=1&width=200&sv=2&se=eu&expires=never",
        f"{HOST}?a=1&a=2",
        f"{HOST}?flag",
        "s3://aws_default@bucket/a/b.jpg",
        "/data/photos/été 1.jpg",
        "file:///data/a.jpg",
        "photo.jpg",
        "HTTPS://Bucket.example/a.jpg?id=7",
        f"{HOST}?a=1&&b=2&",
        f"{HOST}?",
        "////a?id=7",
        "",
    ],
)
def test_a_uri_without_secrets_is_shown_as_it_is(uri):
    """Parameters that only look like a signature's companions stay, as does a connection id."""
    assert redact(uri) == uri


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"https://user:{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"https://user:{SECRET}@host:8443/a.jpg?id=1", "https://***@host:8443/a.jpg?id=1"),
        (f"https://user:a@{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"https://:{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"https://{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"s3://key:{SECRET}@bucket/a.jpg", "s3://***@bucket/a.jpg"),
        (f"{HOST}#{SECRET}", HOST),
        (f"{HOST}?id=1#access_token={SECRET}", f"{HOST}?id=1"),
        (f"https://[::1:80/a.jpg?sig={SECRET}", "https://[::1:80/a.jpg"),
        (f"https://user:{SECRET}@[::1:80/a.jpg", "https://***@[::1:80/a.jpg"),
        (f"https://user:{SECRET}@\u2100.example/a.jpg", "https://***@\u2100.example/a.jpg"),
        (f"https://user:a\n{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"https://user:a/{SECRET}@host/a@2x.jpg", "https://***@host/a@2x.jpg"),
        (f"https://user:a#{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"https://user:a?{SECRET}@host/a.jpg", "https://***@host/a.jpg"),
        (f"https:user:{SECRET}@host/a.jpg", "https:***@host/a.jpg"),
        (f"https:/user:{SECRET}@host/a.jpg", "https:/***@host/a.jpg"),
        (f"https:\\\\user:{SECRET}@host/a.jpg", "https:\\\\***@host/a.jpg"),
        (f" https://user:{SECRET}@host/a.jpg", " https://***@host/a.jpg"),
        (f"s3://AKID:a/{SECRET}@bucket/a.jpg", "s3://***@bucket/a.jpg"),
        (f"s3://bucket/a.jpg?X-Amz-Signature={SECRET}&X-Amz-Date=1", "s3://bucket/a.jpg"),
        (f"gs://bucket/a?x#1&x-goog-signature={SECRET}", "gs://bucket/a?x#1"),
        (f"{HOST};token={SECRET}", HOST),
        (f"{HOST};token={SECRET};v=1?id=1", f"{HOST};v=1?id=1"),
        (f"{HOST}?id=1;token={SECRET}", f"{HOST}?id=1"),
        (f"{HOST}?private_token={SECRET}", HOST),
        (f"{HOST}?Private-Token={SECRET}&id=1", f"{HOST}?id=1"),
        (f"{HOST}?accessToken={SECRET}", HOST),
        (f"{HOST}?to\tken={SECRET}", HOST),
        (f"{HOST}?download_token={SECRET}&token_v2={SECRET}&id=1", f"{HOST}?id=1"),
        (f"{HOST}?Ocp-Apim-Subscription-Key={SECRET}", HOST),
        (f"{HOST}?auth[token]={SECRET}&oauth_signature={SECRET}", HOST),
        (f"{HOST}?%EF%BB%BFtoken={SECRET}", HOST),
        (f"{HOST}?key={SECRET}&sid={SECRET}", f"{HOST}?key=***&sid=***"),
        (f"https://host/a.jpg;jsessionid={SECRET}", "https://host/a.jpg;jsessionid=***"),
        (f"abfs://c@host/a.jpg?sig={SECRET}", "abfs://c@host/a.jpg?sig=***"),
        (f"{HOST}?url=https://user:{SECRET}@b/c", f"{HOST}?url=https://***@b/c"),
        (f"{HOST}?url=https%3A%2F%2Fu%3A{SECRET}%40b", f"{HOST}?url=https%3A%2F%2F***%40b"),
        (f"https://proxy/https://u:{SECRET}@b/c.jpg", "https://proxy/https://***@b/c.jpg"),
        (f'{HOST}?q={{"token":"{SECRET}"}}', f'{HOST}?q={{"token":"***"}}'),
        (f"{HOST}?q=%22token%22%3A%22{SECRET}%22", f"{HOST}?q=%22token%22%3A%22***%22"),
    ],
)
def test_credentials_outside_the_query_are_not_shown(uri, shown):
    """User, password and fragment go, also of a URI that cannot be parsed."""
    assert redact(uri) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "/d/a#1.png",
        "/d/a?token=1",
        "/d/a?&;#",
        "/d/user:pw@host",
        "a;token=1.png",
        "file:///d/a%23?x#y",
        "s3://conn@bucket/a#1?versionId=2&sig=3",
        "s3://bucket/user:pw@host",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a@b",
        "hdfs://host:9000/a@b",
        "https://host:8080/a@2x.jpg",
        "https://host/a.jpg#1",
        "https://host/a.jpg;v=1",
        "https://host/a.jpg?token_count=1&design=2&authors=3",
        "https://host/a.jpg?x-oss-process=image/resize,w_100",
        "https://host/a.jpg?q-80",
        "https://host/a.jpg?key=1&code=2&hash=3&pass=4&sid=5",
        "https://host/a.jpg?src=//cdn:8080/b@2x.jpg",
        "https://host/a.jpg?e=1&t=front",
        "https://host/a\t1.jpg",
        "https://host/a.jpg ",
        " https://host/a.jpg",
        "C:\\a.jpg",
        "nothing",
    ],
)
def test_an_output_has_a_uri_without_secrets_as_it_is(uri):
    """What is no secret stays, character by character, so that no two images share a name."""
    assert without_secrets(uri) == uri
    assert output_uri(uri) == uri


@pytest.mark.parametrize("name", ["st", "se", "sp", "si", "policy", "e", "t", "time"])
def test_a_parameter_beside_a_token_may_name_an_image(name):
    """Only what belongs to a signature of its kind goes with it."""
    assert without_secrets(f"{HOST}?{name}=front&token={SECRET}") == f"{HOST}?{name}=front"


@pytest.mark.parametrize(
    "query",
    ["e=1760000000", "expires=1760000000", "t=68e7a1b2", "expires=never", "ts=1760000000000"],
)
def test_the_time_of_a_signature_goes_with_it(query):
    """It changes each day, and the image does not."""
    assert without_secrets(f"{HOST}?id=1&{query}&token={SECRET}") == f"{HOST}?id=1"


@pytest.mark.parametrize("name", _SECRET_NAMES)
@pytest.mark.parametrize("sign", ["_", "-", ""])
def test_every_secret_parameter_is_found(name, sign):
    """Whatever stands between its words, in any case of letters."""
    written = name.replace("_", sign)
    for one in (written, written.upper(), written.title()):
        assert without_secrets(f"{HOST}?id=1&{one}={SECRET}") == f"{HOST}?id=1"


LONG = {
    "data": "data:image/png;base64," + "A" * 2_000_000,
    "a path": "/d/" + "a/" * 1_000_000,
    "a URL": "https://h/" + "a" * 2_000_000,
    "parameters": "https://h/?" + "&" * 2_000_000,
    "path parameters": "https://h/" + ";a=1" * 500_000,
    "schemes": "a://" * 500_000,
    "colons": "x:" * 1_000_000,
    "names of parameters": "q-" * 1_000_000,
    "a password": f"https://user:{SECRET}{'p' * 2_000_000}@h/a",
    "blanks": " " * 2_000_000 + "https://h/a",
}


@pytest.mark.parametrize("uri", LONG.values(), ids=LONG)
def test_a_long_uri_is_shown_short_and_at_once(uri):
    """Its beginning and its length suffice; two that begin alike have two names."""
    started = time.process_time()
    shown, name, other = redact(uri), storable_name(uri), storable_name(f"{uri}x")
    text = redact_text(f"{uri} cannot be read")
    assert time.process_time() - started < 1
    assert f"({len(uri):,} characters)" in shown
    assert len(shown) < 100
    assert len(name) < 130
    assert name != other
    assert output_uri(uri) == name
    assert len(text) <= 20_100
    assert not any(SECRET in one for one in (shown, name, text))
    assert redact(shown) == shown
    assert storable_name(name) == name


def test_a_name_of_the_greatest_length_is_kept():
    """One character more is too many."""
    name = "k" * MAX_NAME_CHARACTERS
    assert storable_name(name) == redact(name) == name
    assert storable_name(f"{name}k") != f"{name}k"


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"]
)
def test_a_uri_cannot_forge_a_log_line(character):
    """A control character, or one that no text may hold, is shown as a question mark."""
    shown = redact(f"https://host/a{character}ERROR b.jpg")
    assert shown == "https://host/a?ERROR b.jpg"
    assert len(shown.splitlines()) == 1
    shown.encode()


@pytest.mark.parametrize("query", PRESIGNED.values(), ids=PRESIGNED)
def test_redaction_is_stable(query):
    """A redacted URI is not changed by a second redaction."""
    once = redact(f"https://user:pw@host/a.jpg?id=1&{query}")
    assert redact(once) == once


@pytest.mark.parametrize("query", PRESIGNED.values(), ids=PRESIGNED)
@pytest.mark.parametrize(
    "text",
    [
        "cannot download {url}",
        "cannot download '{url}', try again",
        '{{"message": "bad url", "url": "{url}"}}',
        "<a href={url}>here</a>",
        "GET {url} failed; GET {url} failed",
    ],
)
def test_uris_inside_a_text_are_redacted(text, query):
    """A message may repeat a presigned URL, but without its signature."""
    shown = redact_text(text.format(url=f"{HOST}?{query}"))
    assert SECRET not in shown
    assert HOST in shown


@pytest.mark.parametrize(
    "text",
    [
        f"bad URL https://user:a\t{SECRET}@host/a.jpg",
        f"bad URL https:user:{SECRET}@host/a.jpg",
        f"bad URL //user:{SECRET}@host/a.jpg",
        f"bad URL {HOST}?to\nken={SECRET}",
        f"bad URL {HOST}?token='{SECRET}'",
        f'refused: {{"token": "{SECRET}"}}',
        f"refused: {{'password': '{SECRET}'}}",
        f"refused: download_token={SECRET}",
    ],
)
def test_secrets_inside_a_text_are_masked(text):
    """Also where the text is cut by characters that parsers of URLs leave out."""
    assert SECRET not in redact_text(text)


def test_a_text_of_many_urls_is_redacted_soon():
    """No text makes the patterns read it again and again."""
    started = time.process_time()
    for piece in ("//a:", "https://a:b?token=", '"token":', "&x_", "%3a%2f%2fa%3a", "\t//a:b"):
        redact_text(piece * 5_000)
    assert time.process_time() - started < 5


@property_test
@given(texts)
def test_redaction_of_any_text_is_stable(text):
    """Any text can be redacted; once more changes nothing, and a log can encode the result."""
    for redacted in (redact, redact_text, without_secrets):
        once = redacted(text)
        assert redacted(once) == once
    redact(text).encode()


@property_test
@given(pieces, st.sampled_from(SECRET_NAMES), pieces)
def test_a_secret_parameter_survives_nowhere_in_a_query(before, name, after):
    """With any text before and after it."""
    assert SECRET not in redact(f"https://host/a?{before}&{name}={SECRET}&{after}")


@property_test
@given(
    pieces,
    st.sampled_from(["?", "&", "&amp;", "\\u0026", "%26", "%3F", "#", ";", " "]),
    st.sampled_from(SECRET_NAMES),
    st.sampled_from(["=", "%3D", "\\u003d"]),
)
def test_a_secret_parameter_survives_nowhere_in_a_message(before, separator, name, equals):
    """In a URI, in HTML, in JSON, percent-encoded or by itself."""
    text = f"{before} https://host/a?id=1{separator}{name}{equals}{SECRET}"
    assert SECRET not in redact_text(text)


@property_test
@given(st.sampled_from(["http", "HTTPS", "s3", "ftp"]), pieces)
def test_a_password_is_shown_in_no_uri(scheme, rest):
    """Also where host, path and query make no sense."""
    assert SECRET not in redact(f"{scheme}://user:{SECRET}@{rest}")


@property_test
@given(
    st.sampled_from(["http://", "HTTPS://", "s3://conn@", "gs://", "file://", "", "/"]),
    st.sampled_from(["host", "Bucket.example", "host:80", "[::1]", ""]),
    st.lists(plain, max_size=3),
    st.lists(st.tuples(st.sampled_from(["id", "v", "se", "Expires", "A%20b", ""]), plain)),
)
def test_any_uri_without_secrets_is_shown_as_it_is(scheme, host, path, query):
    """Nothing is normalized: neither the case of letters nor the empty parts."""
    uri = "/".join([f"{scheme}{host}", *path])
    uri += "?" + "&".join(f"{name}={value}" for name, value in query) if query else ""
    assert redact(uri) == uri


def test_an_image_shows_no_credentials():
    """Neither repr nor display_uri of an image has a secret of its URI, or its bytes."""
    image = Image(
        f"{HOST}?sig={SECRET}", f"https://u:{SECRET}@host/a?sig={SECRET}", b"5ecre7 bytes", "v1"
    )
    assert SECRET not in repr(image)
    assert image.display_uri == "https://***@host/a"
    assert "12 bytes" in repr(image)
    assert Image("a", content=b"").display_uri is None
