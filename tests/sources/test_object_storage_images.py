"""Images that lie in a bucket of S3 or in a local folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from buckets import Bucket, s3_connection
from databases import API, Database, TaskInstance
from web_servers import Handler, serving

from airflow_imagetag.errors import (
    ConfigurationError,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageTagError,
    StorageError,
)
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.models import Entry, Image, RejectedImage
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.selection.shards import parse_shard
from airflow_imagetag.sources import ImageSource, ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator

ODD_NAMES = [
    "two words.jpg",
    "it's.jpg",
    'a "quote".jpg',
    "plus+plus.jpg",
    "hash#tag.jpg",
    "what?.jpg",
    "what?x=1&token=2.jpg",
    "100%.jpg",
    "50%25.jpg",
    "a%20b.jpg",
    "%41.jpg",
    "smile😀.jpg",
    "Grüße/日本.jpg",
    "at@sign.jpg",
    "colon:semi;comma,.jpg",
    "back\\slash.jpg",
    "brackets[1]{2}(3).jpg",
    "star*.jpg",
    "~tilde.jpg",
    "double..dot.jpg",
    "&amp;<b>.jpg",
    "=equals.jpg",
    "tab\tin.jpg",
    "v.jpg?versionId=1.jpg",
    "v.jpg?versionId=2.jpg",
    "nbsp\u00a0.jpg",
    "nfc\u00e9.jpg",
    "nfde\u0301.jpg",
    " blank.jpg",
    "**.jpg",
    "[.jpg",
    "a.jpg",
    "A.jpg",
]


def s3_source(bucket: Bucket, path: str = "", **fields: Any) -> ObjectStorageImages:
    """Describe the images below a path of the bucket."""
    return ObjectStorageImages(f"s3://aws_default@{bucket.name}/{path}", **fields)


def names(entries: Iterator[Entry], base: str) -> list[str]:
    """Return the keys of the images, as they are below a path."""
    return [entry.key.removeprefix(base) for entry in entries if isinstance(entry, Image)]


# -- listing ----------------------------------------------------------------------------------


def test_more_objects_than_a_page(bucket: Bucket):
    """All 1,100 objects of two pages are listed once, with their ETags."""
    objects = {f"photos/{n % 7}/{n:04}.jpg": b"%d" % (n % 3) for n in range(1100)}
    bucket.put_many(objects.items())
    etags = {
        f"s3://{bucket.name}/{key}": hashlib.md5(content).hexdigest()
        for key, content in objects.items()
    }
    found = list(s3_source(bucket, "photos/").entries())
    found_images = [entry for entry in found if isinstance(entry, Image)]
    assert {image.key: image.version for image in found_images} == etags
    assert len(found) == 1100
    described = s3_source(bucket, "photos")
    parts = [list(described.entries(shard=parse_shard(s))) for s in described.shards(4)]
    together = Counter(entry.key for part in parts for entry in part)
    assert set(together) == set(etags)
    assert set(together.values()) == {1}
    assert all(200 < len(part) < 350 for part in parts)


def test_folders_divide_the_listing_and_shards_do_not(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
):
    """A source for each folder asks for its own pages; a shard asks for those of all."""
    bucket.put_many((f"photos/{n % 4}/{n:04}.jpg", b"%d" % n) for n in range(1200))

    def pages(*sources: ObjectStorageImages, shard: str | None = None) -> list[int]:
        found = []
        for described in sources:
            caplog.clear()
            with caplog.at_level(logging.INFO, "werkzeug"):
                assert list(described.entries(shard=parse_shard(shard)))
            found.append(caplog.text.count("list-type=2"))
        return found

    whole = s3_source(bucket, "photos/")
    assert pages(whole) == [2]
    assert pages(whole, shard="1/4") == [2]
    assert pages(*(s3_source(bucket, f"photos/{n}/") for n in range(4))) == [1, 1, 1, 1]


@pytest.fixture
def mixture(bucket: Bucket) -> Bucket:
    """Put images, folders, other files and empty objects into a bucket."""
    for key in (
        "a.jpg",
        "b.PNG",
        "c.JpEg",
        "notes.txt",
        "jpg",
        "no_suffix",
        "archive.jpg.zip",
        "2026/d.webp",
        "2026/07/e.gif",
        "2026/07/f.tiff",
        "2026/07/thumbs/g.bmp",
        "20261/other.jpg",
    ):
        bucket.put(key, b"x")
    for key in ("2026/", "2026/07/", "looks_like.jpg/"):
        bucket.put(key, b"")
    bucket.put("2026/empty.jpg", b"")
    return bucket


def test_a_bucket(mixture: Bucket):
    """Images are known by their suffix, in small or large letters, in every folder."""
    found = s3_source(mixture).entries()
    assert names(found, f"s3://{mixture.name}/") == [
        "2026/07/e.gif",
        "2026/07/f.tiff",
        "2026/07/thumbs/g.bmp",
        "2026/d.webp",
        "20261/other.jpg",
        "a.jpg",
        "b.PNG",
        "c.JpEg",
    ]


@pytest.mark.parametrize("path", ["2026", "2026/"])
def test_a_folder(mixture: Bucket, path: str):
    """A folder's name is not the beginning of another's."""
    found = s3_source(mixture, path).entries()
    assert names(found, f"s3://{mixture.name}/2026/") == [
        "07/e.gif",
        "07/f.tiff",
        "07/thumbs/g.bmp",
        "d.webp",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["notes.txt"]),
        ("*", None),
        ("2026/*", ["2026/07/e.gif", "2026/07/f.tiff", "2026/07/thumbs/g.bmp", "2026/d.webp"]),
        ("?.jpg", ["a.jpg"]),
        ("[ab].*", ["a.jpg", "b.PNG"]),
        ("nothing", []),
    ],
)
def test_a_pattern(mixture: Bucket, pattern: str, expected: list[str] | None):
    """A pattern takes the place of the suffixes; ``*`` goes across folders."""
    found = names(s3_source(mixture, pattern=pattern).entries(), f"s3://{mixture.name}/")
    assert len(found) == 12 if expected is None else found == expected


def test_empty_objects_are_reported(mixture: Bucket):
    """They are no images; the markers of folders are left out without a report."""
    [empty] = [e for e in s3_source(mixture).entries() if isinstance(e, RejectedImage)]
    assert empty.key == f"s3://{mixture.name}/2026/empty.jpg"
    assert isinstance(empty.error, ImageEmptyError)
    assert empty.version
    # A file that should hold an image is no normal part of a folder.
    assert not empty.is_tolerated


def test_objects_that_are_no_images_are_counted(mixture: Bucket, caplog: pytest.LogCaptureFixture):
    """The log says how many were left out, by suffix, and again only if the numbers change."""
    for _ in range(2):
        list(s3_source(mixture).entries())
    assert caplog.text.count("left out 4 objects by their names (") == 1
    assert "pattern='*' takes objects of any name" in caplog.text
    mixture.put("a.HEIC", b"x")
    list(s3_source(mixture).entries())
    assert "left out 5 objects" in caplog.text
    assert ".heic: 1" in caplog.text


def test_the_suffixes_are_those_of_the_formats_that_the_service_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """All usual ones without a service; a pattern goes before."""
    by_format = {
        "JPEG": ["a.jpg", "b.jpeg", "c.JFIF", "d.jpe", "e.pjpeg"],
        "PNG": ["f.png"],
        "BMP": ["g.bmp", "h.dib"],
        "GIF": ["i.gif"],
        "TIFF": ["j.tif", "k.tiff"],
        "WEBP": ["l.webp"],
    }
    for name in [name for names in by_format.values() for name in names] + ["m.txt", ".jpg", "n"]:
        (tmp_path / name).write_bytes(b"x")
    source = ObjectStorageImages(str(tmp_path))

    def listed(source: ImageSource) -> list[str]:
        return names(source.entries(), f"file://{tmp_path}/")

    images = sorted(name for names in by_format.values() for name in names)
    assert listed(source) == [".jpg", *images]
    assert listed(source.with_formats(None)) == [".jpg", *images]
    assert listed(source.with_formats(frozenset({"PNG", "GIF"}))) == ["f.png", "i.gif"]
    assert listed(source.with_formats(frozenset({"HEIC"}))) == []
    assert "left out 2 objects by their names (.txt: 1, no suffix: 1)" in caplog.text
    assert "left out 13 objects by their names (no suffix: 2, " in caplog.text
    assert "others: " in caplog.text
    every = ObjectStorageImages(str(tmp_path), pattern="?.???")
    assert "m.txt" in listed(every.with_formats(frozenset({"PNG"})))


def test_an_operator_leaves_out_what_the_service_does_not_take(
    tmp_path: Path,
    service: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """A GIF is not sent to ``DetectLabelPro``, and the log says so."""
    (tmp_path / "a.jfif").write_bytes(b"\xff\xd8\xff no picture")
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    connection = service.connection_json_for("DetectLabelPro")
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection)
    task_instance = TaskInstance()
    task = ImageTagOperator(
        task_id="label", images=ObjectStorageImages(str(tmp_path)), max_failure_ratio=1.0
    )
    task.execute({"ti": task_instance})
    assert list(task_instance.xcoms["failures"]["image_key"]) == [f"file://{tmp_path}/a.jfif"]
    assert "left out 1 objects by their names (.gif: 1)" in caplog.text


def test_nothing_below_a_path(mixture: Bucket):
    """A prefix of S3 without objects is an empty source."""
    assert list(s3_source(mixture, "2027/").entries()) == []


def test_a_replaced_object_has_another_version(bucket: Bucket):
    """The version is the ETag, which the bytes decide."""
    versions = []
    for content in (b"first", b"second", b"first"):
        bucket.put("a.jpg", content)
        [entry] = s3_source(bucket).entries()
        assert isinstance(entry, Image)
        versions.append(entry.version)
    assert versions[0] != versions[1]
    assert versions[0] == versions[2]


def test_the_connection_is_no_part_of_the_key(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    """A renamed connection makes no image new."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", bucket.connection_json)
    bucket.put("a.jpg", b"x")
    [first] = s3_source(bucket).entries()
    [second] = ObjectStorageImages(f"s3://{bucket.name}/", "other").entries()
    assert first.key == second.key == f"s3://{bucket.name}/a.jpg"
    assert [entry.uri for entry in (first, second) if isinstance(entry, Image)] == [
        f"s3://{conn_id}@{bucket.name}/a.jpg" for conn_id in ("aws_default", "other")
    ]


# -- reading listed objects -------------------------------------------------------------------


def test_any_name_is_read_back(bucket: Bucket):
    """Under any name of an object, the bytes that are sent are its own."""
    wanted = {}
    more = ["two//slashes.jpg", "/first.jpg", "dot/./in.jpg", "up/../b.jpg", "a.jpg?versionId=null"]
    for number, name in enumerate([*ODD_NAMES, *more, "a.jpg ", "a.jpg/", "a.jpg//"]):
        bucket.put(name, b"content %d" % number)
        wanted[f"s3://{bucket.name}/{name}"] = b"content %d" % number
    reader = ContentLoader()
    found = {}
    for entry in s3_source(bucket, pattern="*").entries():
        assert isinstance(entry, Image)
        assert entry.uri == entry.display_uri == entry.key.replace("s3://", "s3://aws_default@")
        try:
            found[entry.key] = reader.load(entry).content
        except ImageTagError as error:
            found[entry.key] = repr(error).encode()
    assert {key: found.get(key) for key in wanted} == wanted


def test_any_name_is_signed(bucket: Bucket):
    """A presigned URL leads to the object of exactly this name."""
    loader = ContentLoader(presign=True)
    for number, name in enumerate([*ODD_NAMES, "two//slashes.jpg", "a.jpg/"]):
        bucket.put(name, b"content %d" % number)
    for number, name in enumerate([*ODD_NAMES, "two//slashes.jpg", "a.jpg/"]):
        payload = loader.load(Image(name, f"s3://aws_default@{bucket.name}/{name}"))
        with urlopen(str(payload.url)) as answer:
            assert answer.read() == b"content %d" % number, name


@pytest.mark.parametrize("name", ["x#1", "x#2", "x?y=1", "a%20b", "a b", "v?versionId=1", "\u65e5"])
def test_a_folder_of_any_name(bucket: Bucket, tmp_path: Path, name: str):
    """Only the objects of this folder, in S3, by a path, and by a file URI."""
    (tmp_path / name).mkdir()
    for folder in (name, name[:-1], f"{name}1", "other"):
        bucket.put(f"{folder}/a.jpg", b"x")
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / name / "a.jpg").write_bytes(b"x")
    base = f"s3://{bucket.name}/"
    assert names(s3_source(bucket, f"{name}/").entries(), base) == [f"{name}/a.jpg"]
    assert names(s3_source(bucket, name).entries(), base) == [f"{name}/a.jpg"]
    for path in (str(tmp_path / name), (tmp_path / name).as_uri(), f"{tmp_path}/{name}/"):
        source = ObjectStorageImages(path)
        assert [entry.key for entry in source.entries()] == [f"file://{tmp_path}/{name}/a.jpg"]
        assert source.trust().folders[0].rstrip("/") == str(tmp_path / name)
        source.check_trusted([str(tmp_path)])


EMPTY_PARTS = [
    ("s3://{conn}@{bucket}/{{{{ folder }}}}/", ""),
    ("s3://{conn}@{bucket}/{{{{ folder }}}}", ""),
    ("s3://{conn}@{bucket}/2026/{{{{ folder }}}}/", ""),
    ("s3://{conn}@{bucket}/2026/{{{{ folder }}}}", ""),
    ("s3://{conn}@{bucket}/{{{{ folder }}}}/2026/", ""),
    ("s3://{conn}@{bucket}/{{{{ folder }}}}/{{{{ folder }}}}/", ""),
    ("s3://{conn}@{bucket}/{{{{ folder }}}}/", "/"),
    ("s3://{conn}@{{{{ folder }}}}/", ""),
    ("s3://{conn}@{{{{ folder }}}}/photos/", ""),
    ("s3://{{{{ folder }}}}/photos/", ""),
    ("{{{{ folder }}}}", ""),
    ("{{{{ folder }}}}/photos", ""),
    ("{tmp}/{{{{ folder }}}}/", ""),
    ("{tmp}/{{{{ folder }}}}", ""),
    ("{tmp}/{{{{ folder }}}}/2026", ""),
    ("file://{tmp}/{{{{ folder }}}}/", ""),
    ("file:///{{{{ folder }}}}/", ""),
    ("s3://{conn}@{bucket}//", ""),
    ("s3://{conn}@{bucket}/2026//", ""),
    ("s3://{conn}@/2026/", ""),
    ("file:////", ""),
    ("//", ""),
    ("", ""),
]
"""Paths, and the value of a template in them."""


@pytest.mark.parametrize(("path", "value"), EMPTY_PARTS)
def test_an_empty_part_lists_no_other_folder(bucket: Bucket, tmp_path: Path, path: str, value: str):
    """It is an error that names the path, for a source and for a store alike."""
    bucket.put("a.jpg", b"x")
    written = path.format(conn="aws_default", bucket=bucket.name, tmp=tmp_path)
    operator = ImageTagOperator(task_id="label", images=[])
    source = operator.render_template(ObjectStorageImages(written), {"folder": value})
    with pytest.raises(ConfigurationError, match=r"has an empty part|names no bucket") as caught:
        list(source.entries())
    assert repr(source.path) in str(caught.value)
    store = operator.render_template(ParquetLabelStore(written), {"folder": value})
    with pytest.raises(ConfigurationError, match=r"has an empty part|names no bucket"):
        store.open(API)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("s3://aws_default@{bucket}/{{{{ folder }}}}/", "2026/07"),
        ("s3://aws_default@{bucket}/{{{{ folder }}}}", "2026/07/"),
        ("s3://aws_default@{bucket}/{{{{ folder | replace('-', '/') }}}}", "2026-07"),
        ("s3://aws_default@{bucket}/{{% if not folder %}}live/{{% endif %}}2026/07", "x"),
        ("{{{{ folder }}}}", "s3://aws_default@{bucket}/2026/07"),
        ("s3://aws_default@{{{{ folder }}}}", "{bucket}/2026/07"),
    ],
)
def test_a_template_with_a_value_names_its_folder(bucket: Bucket, path: str, value: str):
    """A value may have several parts, or end in a slash."""
    for key in ("a.jpg", "2026/a.jpg", "2026/07/a.jpg", "2026/071/a.jpg"):
        bucket.put(key, b"x")
    operator = ImageTagOperator(task_id="label", images=[])
    source = operator.render_template(
        ObjectStorageImages(path.format(bucket=bucket.name)),
        {"folder": value.format(bucket=bucket.name)},
    )
    base = f"s3://{bucket.name}/"
    assert names(source.entries(), base) == ["2026/07/a.jpg"]


def test_a_written_double_slash_is_a_name_in_a_bucket(bucket: Bucket, tmp_path: Path):
    """A storage of objects may have it in a name; on a disk it is a single one."""
    for key in ("a.jpg", "x/a.jpg", "/x/a.jpg", "//x/a.jpg"):
        bucket.put(key, b"x")
    base = f"s3://{bucket.name}/"
    assert names(s3_source(bucket, "/x/").entries(), base) == ["/x/a.jpg"]
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.jpg").write_bytes(b"x")
    [found] = ObjectStorageImages(f"{tmp_path}//x").entries()
    assert found.key == f"file://{tmp_path}/x/a.jpg"


def test_an_empty_pattern_is_refused(tmp_path: Path):
    """No object matches it, so a run would be green without an image."""
    with pytest.raises(ConfigurationError, match="pattern is an empty text"):
        list(ObjectStorageImages(str(tmp_path), pattern="").entries())


def test_any_local_name_is_read_back(tmp_path: Path):
    """Also on the worker's disk, where percent signs are no escapes."""
    wanted = {}
    for number, name in enumerate([*ODD_NAMES, "line\nbreak.jpg"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"content %d" % number)
        wanted[name] = b"content %d" % number
    for path in (str(tmp_path), f"file://{tmp_path}"):
        source = ObjectStorageImages(path)
        reader = ContentLoader(source.trust().folders)
        found = {}
        for entry in source.entries():
            assert isinstance(entry, Image)
            found[entry.key.removeprefix(f"file://{tmp_path}/")] = reader.load(entry).content
        assert found == wanted


def test_a_name_that_is_no_text_is_reported(tmp_path: Path):
    """A file whose name cannot be written down does not stop the others."""
    (tmp_path / "good.jpg").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jpg")).write_bytes(b"x")
    for shard in (None, parse_shard("0/1")):
        found = list(ObjectStorageImages(str(tmp_path)).entries(shard=shard))
        assert [type(entry).__name__ for entry in found] == ["RejectedImage", "Image"]
        json.dumps([entry.key for entry in found]).encode()
        "".join(entry.key for entry in found).encode()


# -- local folders ----------------------------------------------------------------------------


def test_links_do_not_lead_around(tmp_path: Path):
    """A link to a folder above, or to itself, is not followed for ever."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "photo.jpg").write_bytes(b"x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = list(ObjectStorageImages(str(tmp_path)).entries())
    assert names(iter(found), f"file://{tmp_path}/") in (
        ["a/b/photo.jpg"],
        ["a/gone.jpg", "a/b/photo.jpg"],
    )


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path, service: Emulator):
    """A link to a file elsewhere is left out or refused, and the file is not read."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (photos / "evil.jpg").symlink_to(tmp_path / "secret.jpg")
    task_instance = TaskInstance()
    ImageTagOperator(
        task_id="label", images=ObjectStorageImages(str(photos)), max_failure_ratio=1
    ).execute({"ti": task_instance})
    assert set(task_instance.xcoms["failures"]["error"]) <= {"ImageNotAllowedError"}
    assert service.stats.requests == 0
    with pytest.raises(ImageNotAllowedError):
        ContentLoader([str(photos)]).load(Image("evil", f"{photos}/evil.jpg"))


def test_a_changed_file_has_another_version(tmp_path: Path):
    """The version of a file is made of its size and its time of modification."""
    photo = tmp_path / "a.jpg"
    versions = set()
    for content, moment in ((b"x", 1), (b"xy", 1), (b"xy", 2)):
        photo.write_bytes(content)
        os.utime(photo, ns=(moment, moment * 10**9))
        [entry] = ObjectStorageImages(str(tmp_path)).entries()
        [again] = ObjectStorageImages(str(tmp_path)).entries()
        assert entry == again
        assert isinstance(entry, Image)
        versions.add(entry.version)
    assert len(versions) == 3


def test_a_missing_folder_is_named(tmp_path: Path):
    """The message names it."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        list(ObjectStorageImages(str(tmp_path / "nowhere")).entries())


# -- storages that fail -----------------------------------------------------------------------


def test_a_missing_bucket_is_named(bucket: Bucket):
    """It is the configuration's fault."""
    with pytest.raises(ConfigurationError, match="no-such-bucket"):
        list(ObjectStorageImages("s3://aws_default@no-such-bucket-here/photos").entries())


def test_a_missing_connection_is_named(bucket: Bucket):
    """The worker's own credentials are not used in its place."""
    with pytest.raises(ConfigurationError, match="nobody_knows"):
        list(ObjectStorageImages(f"s3://nobody_knows@{bucket.name}/").entries())


def test_an_unknown_storage_is_named():
    """So is a scheme that nothing reads."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        list(ObjectStorageImages("nowhere://bucket/").entries())


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """Run a storage that answers every request with an error."""
    body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()

    class Refusing(Handler):
        def answer(self) -> None:
            self.respond(body, status=status, headers={"Content-Type": "application/xml"})

    with serving(Refusing) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [(403, "AccessDenied", ConfigurationError), (503, "SlowDown", StorageError)],
)
def test_a_storage_that_refuses(
    status: int, code: str, error: type[ImageTagError], monkeypatch: pytest.MonkeyPatch
):
    """A refusal is the configuration's fault, and an overload may pass."""
    with answering(status, code) as url:
        extra = {
            "endpoint_url": url,
            "region_name": "us-east-1",
            "config_kwargs": {"retries": {"total_max_attempts": 1}},
        }
        monkeypatch.setenv("AIRFLOW_CONN_REFUSING", s3_connection(url, extra=extra))
        with pytest.raises(error, match="photos"):
            list(ObjectStorageImages("s3://refusing@photos/2026/").entries())


def test_a_key_that_is_changed_holds_from_the_next_look(monkeypatch: pytest.MonkeyPatch):
    """A triggerer lives for weeks: the bucket is listed, and images are read, with the new key."""
    valid, objects = {"key": "AKIDfirst"}, {"/photos/a.jpg": b"an image"}
    listing = (
        b"<ListBucketResult><Name>photos</Name><Contents><Key>a.jpg</Key><Size>8</Size>"
        b"<ETag>1</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        b"</ListBucketResult>"
    )

    class Storage(Handler):
        def answer(self) -> None:
            if f"Credential={valid['key']}/" in self.headers["Authorization"]:
                self.respond(objects.get(self.path) or listing)
            else:
                self.respond(b"<Error><Code>InvalidAccessKeyId</Code></Error>", status=403)

    def use(key: str) -> None:
        valid["key"] = key
        fields = json.loads(s3_connection(url)) | {"login": key}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_ROTATED", json.dumps(fields))

    source = ObjectStorageImages("s3://aws_rotated@photos/")
    with serving(Storage) as url:
        for key in ("AKIDfirst", "AKIDsecond"):
            use(key)
            [image] = source.images()
            loader = ContentLoader(storages=source.trust().storages)
            assert loader.load(image).content == b"an image"
        valid["key"] = "AKIDthird"
        with pytest.raises(ImageTagError, match="InvalidAccessKeyId"):
            list(source.images())
        use("AKIDthird")
        assert [image.key for image in source.images()] == ["s3://photos/a.jpg"]


def test_a_storage_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    """It may be back for the task's next try."""
    url = "http://127.0.0.1:1"
    extra = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "config_kwargs": {"retries": {"total_max_attempts": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_DARK", s3_connection(url, extra=extra))
    with pytest.raises(StorageError, match="photos"):
        list(ObjectStorageImages("s3://dark@photos/2026/").entries())


# -- labelling --------------------------------------------------------------------------------


@pytest.mark.parametrize("send", ["bytes", "url"])
def test_the_service_gets_bytes_or_a_url(
    bucket: Bucket,
    sqlite: Database,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
    caplog: pytest.LogCaptureFixture,
    send: str,
):
    """Bytes, or a presigned URL whose signature shows nowhere afterwards."""
    for name, content in zip(ODD_NAMES, small_jpegs(len(ODD_NAMES)), strict=True):
        bucket.put(f"photos/{name}", content)
    bucket.put("photos/broken.jpg", b"no picture")
    task_instance = TaskInstance()
    operator = ImageTagOperator(
        task_id="label",
        images=s3_source(bucket, "photos/", send=send),
        store=SqlLabelStore("warehouse", "labels"),
    )
    with caplog.at_level(logging.DEBUG, "airflow_imagetag"):
        summary = operator.execute({"ti": task_instance})
    [failure] = task_instance.xcoms["failures"].to_dict("records")
    assert failure["image_key"].endswith("broken.jpg")
    assert summary["tagged"] == len(ODD_NAMES), failure
    kept = sqlite.rows("SELECT * FROM labels_images") + sqlite.rows("SELECT * FROM labels")
    everything = f"{kept} {caplog.text} {failure} {summary}"
    assert "signature" not in everything.lower()
    assert "AKIATEST" not in everything
    digests = sqlite.value("SELECT count(content_sha256) FROM labels_images")
    assert digests == (0 if send == "url" else len(ODD_NAMES) + 1)


def test_fields_are_templates():
    """Path, connection and pattern are rendered."""
    source = ObjectStorageImages("s3://photos/{{ day }}/", "{{ c }}", pattern="{{ p }}")
    operator = ImageTagOperator(task_id="label", images=source)
    rendered = operator.render_template(source, {"day": "2026-07-01", "c": "aws", "p": "*.jpg"})
    assert (rendered.path, rendered.conn_id, rendered.pattern) == (
        "s3://photos/2026-07-01/",
        "aws",
        "*.jpg",
    )
    assert source.path == "s3://photos/{{ day }}/"


def test_a_rendered_folder_is_not_the_authors_word(
    tmp_path: Path, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """A template in a local path may name any folder, so its files are not read."""
    (tmp_path / "a.jpg").write_bytes(small_jpegs(1)[0])
    for path in (str(tmp_path), "{{ folder }}"):
        operator = ImageTagOperator(task_id="label", images=ObjectStorageImages(path))
        operator.images = operator.render_template(operator.images, {"folder": str(tmp_path)})
        if "{" in path:
            with pytest.raises(ConfigurationError, match="allowed_local_paths"):
                operator.execute({})
        else:
            operator.execute({})
        assert service.stats.requests == 1


def test_only_two_ways_to_send():
    """The DAG's author learns it while the DAG is parsed."""
    with pytest.raises(ConfigurationError, match="send must be"):
        ObjectStorageImages("s3://photos/", send="both")


def test_it_is_described_without_secrets():
    """The description that Airflow shows holds no password."""
    shown = ObjectStorageImages("s3://key:secret@photos/").serialize()
    assert "secret" not in json.dumps(shown)
    assert shown == ObjectStorageImages("s3://key:secret@photos/").serialize()
