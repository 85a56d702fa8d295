"""Where a map of labels comes from: a dict, CSV and JSON files, on a disk and in a bucket."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, s3_connection

from airflow_imagetag.backends.connection_policy import ConnectionPolicy
from airflow_imagetag.backends.parameter_files import PathPolicy
from airflow_imagetag.errors import ConfigurationError, StorageError
from airflow_imagetag.models import Label
from airflow_imagetag.operators.label_files import MAX_MAP_BYTES, read_label_map
from airflow_imagetag.operators.label_map import LabelMap

NAMES = {"天空": "sky", "云": "cloud, white", "水印": None}
CSV = 'label,name\n天空,sky\n云,"cloud, white"\n水印,\n'


def renamed(given: Any, allowed: tuple[str, ...] = (), *, literal: bool = True) -> dict[str, Any]:
    """Return the names that a map gives to three labels."""
    value = given if isinstance(given, LabelMap) else LabelMap(given, literal=literal)
    taxonomy = read_label_map(value, PathPolicy(allowed))
    assert taxonomy is not None
    labels = {name: taxonomy([Label(name, 0.5)]) for name in NAMES}
    return {name: found[0].name if found else None for name, found in labels.items()}


def refused(given: Any, allowed: tuple[str, ...] = (), *, literal: bool = True) -> str:
    """Return the message of the error that a map ends in."""
    with pytest.raises(ConfigurationError) as caught:
        read_label_map(LabelMap(given, literal=literal), PathPolicy(allowed))
    return caught.value.message


def written(folder: Path, content: str | bytes, name: str = "labels.csv") -> str:
    """Write a file and return its path."""
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return str(folder / name)


# -- files that are allowed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        CSV.replace("\n", "\r"),
        "\ufeff" + CSV,
        CSV.rstrip("\n"),
        CSV.replace("\n", "\n\n , \n").replace("label,name\n\n , \n", "label,name\n"),
        'name,note,label\nsky,"two\nlines",天空\n"cloud, white",,云\n,,水印\n',
        ' label , name \n天空 , sky\n 云, "cloud, white"\n水印, \n',
        "label,name\n" + "天空,sky\n" * 3 + '云,"cloud, white"\n水印,\n',
    ],
    ids=["plain", "CRLF", "CR", "BOM", "no last newline", "empty lines", "columns", "blanks", "2x"],
)
def test_csv_files(content, tmp_path):
    """UTF-8 as spreadsheets and tools write it, with further columns in any order."""
    assert renamed(written(tmp_path, content)) == NAMES


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("escaped", [True, False])
def test_json_files(indent, mark, escaped, tmp_path):
    """One object, with null or an empty text for a dropped label."""
    text = mark + json.dumps(NAMES, indent=indent, ensure_ascii=escaped)
    assert renamed(written(tmp_path, text, "labels.JSON")) == NAMES


def test_a_dict_and_the_text_of_one():
    """Both mean the same, as does the result of a task."""
    assert renamed(NAMES) == renamed(json.dumps(NAMES)) == renamed(NAMES, literal=False) == NAMES


@pytest.mark.parametrize("given", [None, "", "None"])
def test_no_map(given):
    """None, and the texts that a template of a missing parameter renders to."""
    assert read_label_map(LabelMap(given), PathPolicy()) is None
    assert read_label_map(given, PathPolicy()) is None


@pytest.mark.parametrize("content", ["label,name\n", "{}"])
def test_an_empty_map_renames_nothing(content, tmp_path):
    """It is a map all the same."""
    name = "a.json" if content == "{}" else "a.csv"
    assert renamed(written(tmp_path, content, name)) == {name: name for name in NAMES}


# -- faulty files ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line must name the columns label and name"),
        ("天空,sky\n", "separated by commas, and is '天空,sky'"),
        ("label;name\n天空;sky\n", "and is 'label;name'"),
        ("label,label,name\n", "once each"),
        ("label\n天空\n", "columns label and name"),
        ("label,name\n天空\n", "line 2 has 1 values and the first line 2"),
        ("label,name\n\n云,cloud, white\n", "line 3 has 3 values"),
        ('label,name\n天空,"sky\n', "line 2: unexpected end of data"),
        ("label,name\n天空,sky\n,x\n", "line 3: the name 'x' has no label"),
        ("label,name\n天空,sky\n云,a\n天空,b\n", "line 4: the label '天空' has the name 'b' here"),
        ("label,name\n天空,sky\n云,".encode() + b"\xc0\xff\n", "line 3 is not UTF-8"),
        (CSV.encode("utf-16"), "line 1 is not UTF-8"),
        ("label,name\n天空," + "x" * 200_000, "line 2: field larger than field limit"),
        (b"label,name\n" + b"x" * MAX_MAP_BYTES, "is larger than 10 MB"),
    ],
)
def test_a_wrong_csv_file(content, message, tmp_path):
    """The error names the file, the line and the remedy."""
    path = written(tmp_path, content)
    found = refused(path)
    assert found.startswith(f"label_map {path}")
    assert message in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1, column 1 is not JSON"),
        ('{"天空": "sky",\n "云"}', "line 2, column 5 is not JSON"),
        ("{'天空': 'sky'}", "is not JSON"),
        ("[]", "must be one JSON object"),
        ('[["天空", "sky"]]', "must be one JSON object"),
        ('"天空"', "must be one JSON object"),
        ('{"天空": 1}', "'天空' has 1"),
        ('{"天空": {"name": "sky"}}', "must be texts"),
        ('{"天空": "sky", "天空": "heaven"}', "has the name 'heaven' here and 'sky' before"),
        ('{"天空": "\\ud83d"}', "half of a character"),
        ("[" * 100_000, "is not a JSON object"),
    ],
)
def test_a_wrong_json_file(content, message, tmp_path):
    """The error names the file and its fault."""
    path = written(tmp_path, content, "labels.json")
    found = refused(path)
    assert found.startswith(f"label_map {path}")
    assert message in found


@pytest.mark.parametrize("name", ["labels.txt", "labels", "labels.csv.gz", "labels.xlsx"])
def test_another_kind_of_file(name, tmp_path):
    """Only a file that ends in .csv or .json is read."""
    assert "ends in .csv or .json" in refused(written(tmp_path, CSV, name))


def test_the_text_of_a_python_dict_is_told_apart():
    """A template renders a dict to it; the error names the remedy."""
    assert "'| tojson'" in refused(str(NAMES))


@pytest.mark.parametrize("value", [7, ["天空"], {"天空"}, b"labels.csv"])
def test_no_map_at_all(value):
    """The result of an upstream task may be of any type."""
    assert "must be a dict or the path of a file" in refused(value, literal=False)


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    """None of them is read, or waited for."""
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("none.csv", "folder.csv", "pipe.csv"):
        assert "does not exist, or is not a file" in refused(str(tmp_path / name))
    assert "cannot be read" in refused(f"{tmp_path}/a\0.csv")


# -- who may name a local file ----------------------------------------------------------------


def test_a_local_path_of_the_author_is_read_and_one_from_data_only_where_it_may(tmp_path):
    """A link does not lead out of an allowed folder."""
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    inside, outside = written(allowed, CSV), written(other, CSV)
    (allowed / "link.csv").symlink_to(outside)
    folders = (str(allowed),)
    for path in (inside, outside, f"file://{outside}"):
        assert renamed(path) == NAMES
    assert renamed(inside, folders, literal=False) == NAMES
    for path in (outside, f"file://{outside}", f"{allowed}/link.csv", f"{allowed}/../other/x.csv"):
        found = refused(path, folders, literal=False)
        assert "[imagetag] allowed_local_paths" in found
    # The text with the template stood in the DAG file; the rendered text did not.
    assert not LabelMap("{{ params.path }}", literal=True).is_literal


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "zip", "memory"])
def test_other_schemes_are_refused(scheme):
    """They would reach the worker's network or disk past the rules."""
    assert f"has the scheme {scheme!r}" in refused(f"{scheme}://host/labels.csv")


@pytest.mark.parametrize("name", ["my map", "a#1", "a?token=1", "a%20b", "a?versionId=1", "\u65e5"])
def test_a_file_of_any_name(name: str, tmp_path: Path, bucket: Bucket):
    """By its path, its file URI and its object, and no other file."""
    for other in (name.partition("?")[0], name.partition("#")[0], "a b"):
        written(tmp_path, "label,name\n", f"{other}.csv")
        bucket.put(f"{other}.csv", b"label,name\n")
    path = Path(written(tmp_path, CSV, f"{name}.csv"))
    bucket.put(f"{name}.csv", CSV.encode())
    for given in (str(path), path.as_uri(), f"s3://aws_default@{bucket.name}/{name}.csv"):
        assert renamed(given, (str(tmp_path),), literal=False) == NAMES


# -- buckets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("literal", [True, False])
def test_a_file_in_a_bucket(literal, bucket: Bucket):
    """It is read through the connection that its path names, each time as it is then."""
    bucket.put("maps/labels.csv", CSV.encode())
    bucket.put("maps/labels.json", json.dumps(NAMES).encode())
    for name in ("labels.csv", "labels.json"):
        path = f"s3://aws_default@{bucket.name}/maps/{name}"
        assert renamed(path, literal=literal) == NAMES
    bucket.put("maps/labels.csv", CSV.replace("sky", "heaven").encode() + "草,grass\n".encode())
    path = f"s3://aws_default@{bucket.name}/maps/labels.csv"
    assert renamed(path, literal=literal) == NAMES | {"天空": "heaven"}


def test_a_bucket_that_has_no_such_file(bucket: Bucket):
    """Names of objects, buckets and connections that are wrong are configuration."""
    there = f"s3://aws_default@{bucket.name}"
    assert "does not exist" in refused(f"{there}/none.csv")
    assert "does not exist" in refused("s3://aws_default@no-such-bucket-anywhere/labels.csv")
    assert "no_such_connection" in refused(f"s3://no_such_connection@{bucket.name}/labels.csv")
    bucket.put("large.csv", b"x" * (MAX_MAP_BYTES + 1))
    assert "is larger than 10 MB" in refused(f"{there}/large.csv")


def test_a_storage_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    """It may be there when Airflow tries the task again."""
    fields = json.loads(s3_connection("http://127.0.0.1:1"))
    fields["extra"]["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_AWAY", json.dumps(fields))
    with pytest.raises(StorageError, match=r"label_map s3://\S+\.csv cannot be read"):
        read_label_map(LabelMap("s3://aws_away@bucket/labels.csv", literal=True), PathPolicy())


def test_a_connection_that_data_names(monkeypatch: pytest.MonkeyPatch):
    """It must be of the storage's type, and of the list; the author may name any."""
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "login": "u", "password": "s3cret"}
    monkeypatch.setenv("AIRFLOW_CONN_PG", json.dumps(fields))
    path = "s3://pg@bucket/labels.csv"
    assert "'pg' of the type 'postgres'" in refused(path, literal=False)
    assert "of the type" not in refused(path)
    only = PathPolicy(connections=ConnectionPolicy(only="photos"))
    with pytest.raises(ConfigurationError, match=r"label_map: .*='photos' only"):
        read_label_map(LabelMap(path), only)
