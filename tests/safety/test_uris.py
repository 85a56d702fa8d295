"""What is shown of a URI, and what kind it is."""

from __future__ import annotations

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.safety.uris import (
    is_http,
    is_local,
    local_path,
    redact,
    redact_text,
    scheme_of,
)

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


@pytest.mark.parametrize("query", PRESIGNED.values(), ids=PRESIGNED)
def test_a_presigned_query_is_not_shown(query):
    """Nothing of a presigned query is left, neither the signature nor what belongs to it."""
    assert redact(f"{HOST}?{query}") == HOST


@pytest.mark.parametrize("query", PRESIGNED.values(), ids=PRESIGNED)
def test_what_tells_images_apart_stays_beside_a_signature(query):
    """A parameter that is no part of the signature is shown, before and after it."""
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
        (f"https://[::1:{SECRET}/a.jpg?sig={SECRET}", f"https://[::1:{SECRET}/a.jpg"),
    ],
)
def test_credentials_outside_the_query_are_not_shown(uri, shown):
    """User, password and fragment go; a URI that cannot be parsed loses all from its query on."""
    assert redact(uri) == shown


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
    """What was redacted stays as it is when it is redacted again."""
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
    """A message may repeat a presigned URL; what is shown of it holds no signature."""
    shown = redact_text(text.format(url=f"{HOST}?{query}"))
    assert SECRET not in shown
    assert HOST in shown


@pytest.mark.parametrize(
    ("uri", "scheme", "http", "local"),
    [
        ("https://host/a", "https", True, False),
        ("HTTP://host/a", "http", True, False),
        ("s3://bucket/a", "s3", False, False),
        ("file:///a", "file", False, True),
        ("FILE:///a", "file", False, True),
        ("local:///a", "local", False, True),
        ("simplecache::file:///a", "simplecache::file", False, False),
        ("/data/a.jpg", "", False, True),
        ("a.jpg", "", False, True),
        ("C:\\a.jpg", "", False, True),
        ("", "", False, True),
    ],
)
def test_the_kind_of_a_uri(uri, scheme, http, local):
    """The scheme decides, in any case of letters; a plain path is a local file."""
    assert (scheme_of(uri), is_http(uri), is_local(uri)) == (scheme, http, local)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/a b.jpg", "/data/a b.jpg"),
        ("/data/a%20b.jpg", "/data/a%20b.jpg"),
        ("photos/a.jpg", "photos/a.jpg"),
        ("file:///data/a.jpg", "/data/a.jpg"),
        ("FILE:///data/a.jpg", "/data/a.jpg"),
        ("file://localhost/data/a.jpg", "/data/a.jpg"),
        ("file://conn@/data/a.jpg", "/data/a.jpg"),
        ("local:///data/a.jpg", "/data/a.jpg"),
        ("file:///data/a%20b%2Fc.jpg", "/data/a b/c.jpg"),
        ("file:///data/%2e%2e/a.jpg", "/data/../a.jpg"),
        ("file://data/a.jpg", "data/a.jpg"),
    ],
)
def test_the_path_of_a_local_uri(uri, path):
    """A file URI is percent-decoded and may name a host or a connection; a path is not touched."""
    assert local_path(uri) == path


def test_an_image_shows_no_credentials():
    """Neither repr nor display_uri of an image holds what its URI hides, nor its bytes."""
    image = Image(
        f"{HOST}?sig={SECRET}", f"https://u:{SECRET}@host/a?sig={SECRET}", b"5ecre7 bytes", "v1"
    )
    assert SECRET not in repr(image)
    assert image.display_uri == "https://***@host/a"
    assert "12 bytes" in repr(image)
    assert Image("a", content=b"").display_uri is None
