"""The kinds of URIs, and the paths of local ones."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import property_test

from airflow_imagetag.safety.uris import (
    BLANKS,
    is_below,
    is_blank,
    is_data,
    is_http,
    is_local,
    local_path,
    scheme_of,
)


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


paths = st.lists(st.text(st.characters(exclude_characters="/\x00"), min_size=1), min_size=1).map(
    "/".join
)


@property_test
@given(st.text(st.characters()))
def test_any_text_has_one_kind(uri):
    """It is a URL, a local path or an object's URI, and never two of them."""
    assert not (is_http(uri) and is_local(uri))
    assert is_http(uri) or is_local(uri) or scheme_of(uri)


@property_test
@given(st.sampled_from(["file://", "local://", "file://localhost", "file://conn@"]), paths)
def test_the_path_of_an_encoded_file_uri(start, path):
    """It is the path that was encoded."""
    encoded = quote(path.encode("utf-8", "replace"))
    assert local_path(f"{start}/{encoded}").encode() == b"/" + path.encode("utf-8", "replace")


@property_test
@given(paths.filter(lambda path: "://" not in path))
def test_a_plain_path_is_not_decoded(path):
    """A percent sign in it is part of a name."""
    assert local_path(f"/{path}") == f"/{path}"


def test_a_folder_holds_what_is_below_it(tmp_path: Path):
    """Its own links are resolved, and a name that merely begins like it is another folder."""
    real = Path(os.path.realpath(tmp_path))
    (real / "photos").mkdir()
    (real / "link").symlink_to(real / "photos")
    assert is_below(str(real / "photos" / "a.jpg"), str(real / "link"))
    assert is_below(str(real / "photos"), str(real / "photos"))
    assert not is_below(str(real / "photos2" / "a.jpg"), str(real / "photos"))
    assert not is_below(str(real / "a.jpg"), str(real / "photos"))


@property_test
@given(paths, paths)
def test_below_a_folder_is_what_begins_with_it(folder, path):
    """For paths without dots and links."""
    folder, path = (f"/none/{text.replace('.', '_')}" for text in (folder, path))
    try:
        found = is_below(path, folder)
    except UnicodeEncodeError:
        # No file system has such a name.
        return
    assert found == f"{path}/".startswith(f"{folder}/")


@pytest.mark.parametrize("uri", ["/data/http://x.jpg", " https://h/a", "a b://c", "://a", "1a://b"])
def test_what_only_looks_like_a_scheme_is_a_path(uri):
    """A scheme begins the text, and has letters and digits only."""
    assert (scheme_of(uri), is_local(uri)) == ("", True)


def test_escapes_of_a_name_that_is_no_text_come_back_as_its_bytes():
    """Two names in another encoding than UTF-8 stay two."""
    assert [os.fsencode(local_path(f"file:///d/%{code}")) for code in ("E4", "E5")] == [
        b"/d/\xe4",
        b"/d/\xe5",
    ]


@pytest.mark.parametrize(
    ("uri", "is_one"),
    [
        ("data:image/png;base64,AAAA", True),
        ("DATA:,x", True),
        ("data:text/plain;charset=utf-8,x", True),
        ("data:x.png", False),
        ("data/a,b.png", False),
        ("/data:a,b", False),
        ("s3://data:a,b", False),
        ("", False),
    ],
)
def test_uris_that_hold_the_bytes(uri, is_one):
    """A path may begin with the same letters."""
    assert is_data(uri) is is_one


def test_blanks():
    """All that Python and Unicode call white space, and characters without a width."""
    every = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    assert [blank for blank in every if not is_blank(blank)] == []
    assert is_blank("")
    assert is_blank("\u200b\ufeff \u3000")
    assert not any(map(is_blank, ("a", " a", "a ", "\u3000a", "\x00", "\u2800", "-")))
    assert len(set(BLANKS)) == len(BLANKS)
