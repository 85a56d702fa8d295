"""The payload of an image, and the images that the worker refuses to read."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import http.client
import itertools
import json
import os
import socket
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from web_servers import Handler, serving

from airflow_imagetag.backends.configuration import allowed_connections
from airflow_imagetag.backends.connection_policy import ConnectionPolicy
from airflow_imagetag.backends.places import Place, read_start
from airflow_imagetag.errors import (
    Billing,
    ConfigurationError,
    Decision,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageStorageError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageAccessError,
    StorageError,
)
from airflow_imagetag.loading import content
from airflow_imagetag.loading.content import MAX_INLINE_SHA256_BYTES, ContentLoader
from airflow_imagetag.loading.download import Downloader
from airflow_imagetag.models import Image

PHOTO = b"\xff\xd8\xff the photo"
SECRET = b"root:x:0:0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make an allowed folder beside one that is not."""
    for path, data in {
        "data/a.jpg": PHOTO,
        "data/sub/b c.jpg": PHOTO,
        "data/100%25.jpg": PHOTO,
        "data/empty.jpg": b"",
        "data/..c.jpg": PHOTO,
        "database/secret.jpg": SECRET,
        "secret.jpg": SECRET,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    return tmp_path


@pytest.fixture
def loader(tree: Path) -> ContentLoader:
    """Allow one folder."""
    return ContentLoader([str(tree / "data")])


@pytest.mark.parametrize("needs_sha256", [True, False])
@pytest.mark.parametrize(
    ("image", "with_sha256", "without"),
    [
        (Image("a", "https://host/a"), True, True),
        (Image("a", content=b"1" * 1000), True, True),
        (Image("a", content=b"1" * 500_000), False, True),
        (Image("a", content=b"1" * 5_000_000), False, False),
        (Image("a", "/data/a.jpg"), False, False),
        (Image("a", "s3://b/a.jpg"), False, False),
    ],
)
def test_an_image_that_needs_no_thread_is_loaded_inline(image, with_sha256, without, needs_sha256):
    """A URL and a few bytes are; a file, an object and many bytes are left to ``load``."""
    loader = ContentLoader(needs_sha256=needs_sha256)
    payload = loader.inline(image)
    assert (payload is not None) is (with_sha256 if needs_sha256 else without)
    assert payload is None or payload == loader.load(image)


def test_the_limit_of_inline_bytes_is_inclusive():
    """Bytes of exactly this size need no thread."""
    loader = ContentLoader()
    limit = MAX_INLINE_SHA256_BYTES
    assert loader.inline(Image("a", content=bytes(limit))) is not None
    assert loader.inline(Image("a", content=bytes(limit + 1))) is None


@pytest.mark.parametrize(
    "image",
    [
        Image("a", "http://127.0.0.1/a", content=PHOTO),
        Image("a", "/data/a.jpg"),
        Image("a", "s3://b/a.jpg"),
        Image("a"),
    ],
)
def test_only_an_image_behind_a_url_is_downloaded(image):
    """Bytes, files and objects need no download, with a downloader and without."""
    downloader = Downloader(max_bytes=100, timeout_seconds=1)
    assert asyncio.run(ContentLoader(downloader=downloader).fetch(image)) is image
    assert asyncio.run(ContentLoader().fetch(image)) is image


def test_a_url_is_left_to_the_service_without_a_downloader():
    """The worker opens no connection."""
    image = Image("a", "http://127.0.0.1:1/a")
    assert asyncio.run(ContentLoader().fetch(image)) is image


def test_a_download_gives_the_image_its_bytes():
    """Key, URI and version stay, and the digest is that of the bytes."""

    class Photograph(Handler):
        def answer(self) -> None:
            self.respond(PHOTO)

    async def fetch(url: str) -> Image:
        allowed = ["127.0.0.1"]
        async with Downloader(max_bytes=100, timeout_seconds=10, allowed_hosts=allowed) as opened:
            return await ContentLoader(downloader=opened).fetch(Image("a", url, version="1"))

    with serving(Photograph) as url:
        fetched = asyncio.run(fetch(url))
    assert fetched == Image("a", url, PHOTO, "1")
    assert ContentLoader().load(fetched).digest == hashlib.sha256(PHOTO).hexdigest()


def test_without_sha256_equal_bytes_are_recognized(tree):
    """Within one loader; no digest could be taken for a SHA-256."""
    loader = ContentLoader([str(tree)], needs_sha256=False)
    file = loader.load(Image("a", str(tree / "data" / "a.jpg")))
    given = loader.load(Image("b", content=PHOTO))
    other = loader.load(Image("c", content=SECRET))
    assert file.digest == given.digest != other.digest
    assert file.sha256 is given.sha256 is other.sha256 is None
    assert file.digest != ContentLoader(needs_sha256=False).load(Image("b", None, PHOTO)).digest


def read(loader: ContentLoader, uri: str) -> bytes | None:
    """Return the bytes behind a URI."""
    return loader.load(Image("k", uri)).content


@pytest.mark.parametrize("uri", ["https://h/a.jpg?X-Amz-Signature=x", "HTTP://h/a"])
def test_a_url_is_handed_on(uri):
    """The service downloads it; the worker opens no connection."""
    payload = ContentLoader().load(Image("k", uri))
    assert (payload.url, payload.content, payload.digest) == (uri, None, None)


def test_bytes_go_before_the_uri():
    """An image with bytes is sent with their digest, and its URI is not read."""
    payload = ContentLoader().load(Image("k", "/etc/passwd", PHOTO))
    assert (payload.url, payload.content) == (None, PHOTO)
    assert payload.digest == hashlib.sha256(PHOTO).hexdigest()


@pytest.mark.parametrize("method", [ContentLoader.load, ContentLoader.inline])
def test_an_image_of_nothing(method):
    """Without URI and bytes there is nothing to read."""
    with pytest.raises(InvalidImageError):
        method(ContentLoader(), Image("k"))


@pytest.mark.parametrize(
    "uri",
    [
        "{root}/data/a.jpg",
        "{root}/data/sub/b c.jpg",
        "{root}/data/sub/../a.jpg",
        "{root}/database/../data/a.jpg",
        "{root}/data/..c.jpg",
        "{root}//data//a.jpg",
        "{root}/data/100%25.jpg",
        "file://{root}/data/a.jpg",
        "FILE://{root}/data/a.jpg",
        "local://{root}/data/a.jpg",
        "file://localhost{root}/data/a.jpg",
        "file://conn@{root}/data/a.jpg",
        "file://{root}/data/sub/b%20c.jpg",
        "file://{root}/data/100%2525.jpg",
        "file://{root}/data%2Fa.jpg",
    ],
)
def test_a_file_inside_an_allowed_folder(loader, tree, uri):
    """It is read, however its path is written."""
    assert read(loader, uri.format(root=tree)) == PHOTO


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/environ",
        "{root}/secret.jpg",
        "{root}/database/secret.jpg",
        "{root}/data/../secret.jpg",
        "{root}/data/sub/../../secret.jpg",
        "{root}/data",
        "secret.jpg",
        "../secret.jpg",
        "~/secret.jpg",
        "",
        ".",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "local:///etc/passwd",
        "file://localhost/etc/passwd",
        "file://conn@/etc/passwd",
        "file://etc/passwd",
        "file:/etc/passwd",
        "file://{root}/data/%2e%2e/secret.jpg",
        "file://{root}/data/..%2Fsecret.jpg",
        "file://{root}/data%2F..%2Fsecret.jpg",
        "{root}/data/%2e%2e/secret.jpg",
        "file://{root}/data/../secret.jpg?x",
        "{root}/missing.jpg",
    ],
)
def test_a_file_outside_the_allowed_folders(tree, uri, monkeypatch):
    """It is refused, however its path is written, and whether or not it exists."""
    monkeypatch.chdir(tree)
    loader = ContentLoader([str(tree / "data" / "sub" / "..")])
    uri = uri.format(root=tree)
    if uri == f"{tree}/data":
        loader = ContentLoader([str(tree / "data" / "sub")])
    if "%2e" in uri and not uri.startswith("file:"):
        # In a plain path the percents are letters, of a missing file inside the folder.
        with pytest.raises(ImageUnreadableError):
            read(loader, uri)
        return
    with pytest.raises(ImageNotAllowedError, match="allowed_local_paths") as caught:
        read(loader, uri)
    assert caught.value.decision is Decision.RECORD


@pytest.mark.parametrize("folders", [[], ["{root}/data"]])
def test_nothing_is_allowed_by_default(tree, folders):
    """Without a folder in the configuration no file is read at all."""
    loader = ContentLoader([folder.format(root=tree) for folder in folders])
    if folders:
        assert read(loader, f"{tree}/data/a.jpg") == PHOTO
    else:
        with pytest.raises(ImageNotAllowedError):
            read(loader, f"{tree}/data/a.jpg")


def test_the_root_folder_allows_all(tree):
    """The whole disk may be allowed."""
    assert read(ContentLoader(["/"]), f"{tree}/secret.jpg") == SECRET


def test_symlinks_out_of_the_folder(loader, tree):
    """A link to a file or folder outside is refused; one that stays inside is read."""
    (tree / "data/link.jpg").symlink_to(tree / "secret.jpg")
    (tree / "data/folder").symlink_to(tree / "database")
    (tree / "data/chain.jpg").symlink_to(tree / "data/link.jpg")
    (tree / "data/inside.jpg").symlink_to(tree / "data/a.jpg")
    for name in ("link.jpg", "folder/secret.jpg", "chain.jpg"):
        with pytest.raises(ImageNotAllowedError):
            read(loader, f"{tree}/data/{name}")
    assert read(loader, f"{tree}/data/inside.jpg") == PHOTO


def test_an_allowed_folder_may_be_a_symlink(tree):
    """The folder's own link is followed, and its files are inside under both names."""
    (tree / "link").symlink_to(tree / "data")
    loader = ContentLoader([str(tree / "link")])
    assert read(loader, f"{tree}/link/a.jpg") == read(loader, f"{tree}/data/a.jpg") == PHOTO


def test_a_loop_of_symlinks(loader, tree):
    """A link to itself is this image's error."""
    (tree / "data/loop.jpg").symlink_to(tree / "data/loop.jpg")
    with pytest.raises(ImageUnreadableError):
        read(loader, f"{tree}/data/loop.jpg")


def test_a_path_that_is_no_regular_file(loader, tree):
    """A folder, a named pipe and a socket are refused at once, without waiting for a writer."""
    os.mkfifo(tree / "data/pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree / "data")  # the path of a socket must be short
        try:
            server.bind("socket.jpg")
        finally:
            os.chdir(here)
        for name in ("pipe.jpg", "socket.jpg", "sub", ""):
            with pytest.raises(ImageUnreadableError):
                read(loader, f"{tree}/data/{name}")


def test_an_endless_device():
    """A device is not read, even if its folder is allowed."""
    with pytest.raises(ImageUnreadableError, match="not a regular file"):
        read(ContentLoader(["/dev"]), "/dev/zero")


@pytest.mark.parametrize("name", ["missing.jpg", "a.jpg/b.jpg", "x" * 300, "a\x00b.jpg", "\ud800"])
def test_a_file_that_cannot_be_opened(loader, tree, name):
    """Missing, not in a folder, too long, or not a valid name: this image's error."""
    with pytest.raises((ImageUnreadableError, ImageNotAllowedError)) as caught:
        read(loader, f"{tree}/data/{name}")
    assert caught.value.decision is Decision.RECORD
    caught.value.message.encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(loader, tree):
    """A file that the worker may not read is this image's error."""
    (tree / "data/a.jpg").chmod(0)
    with pytest.raises(ImageUnreadableError, match="Permission denied"):
        read(loader, f"{tree}/data/a.jpg")


def test_an_empty_file(loader, tree):
    """Zero bytes are not sent."""
    with pytest.raises(ImageEmptyError):
        read(loader, f"{tree}/data/empty.jpg")


def test_a_file_that_is_too_large(loader, tree):
    """More than the limit is not read into memory; exactly the limit is."""
    path = tree / "data/large.jpg"
    with path.open("wb") as file:
        file.truncate(content.MAX_IMAGE_BYTES)
    assert len(read(loader, str(path)) or b"") == content.MAX_IMAGE_BYTES
    with path.open("wb") as file:
        file.truncate(10 * 1024**4)
    with pytest.raises(ImageTooLargeError):
        read(loader, str(path))


def test_a_small_file_takes_little_memory(loader, tree):
    """The memory depends on the file's size, and not on the limit."""
    tracemalloc.start()
    try:
        assert read(loader, f"{tree}/data/a.jpg") == PHOTO
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < content.MAX_IMAGE_BYTES // 20


def test_a_file_with_a_wrong_size_of_zero():
    """It is read to its end, as files of /proc."""
    assert read(ContentLoader(["/proc"]), "/proc/version") == Path("/proc/version").read_bytes()


@pytest.mark.parametrize("folder", ["data", "./data", "~/data", "", "file:///data"])
def test_a_relative_folder_is_an_error(folder):
    """The files that it allows would depend on the worker's current folder."""
    with pytest.raises(ConfigurationError, match="absolute"):
        ContentLoader([folder])


@pytest.mark.parametrize("uri", ["{root}/secret.jpg", "file://{root}/secret.jpg"])
def test_a_literal_path_is_read(tree, uri):
    """A path that the DAG's author wrote may be read, spelled exactly as it was written."""
    uri = uri.format(root=tree)
    loader = ContentLoader([], frozenset({uri}))
    assert read(loader, uri) == SECRET
    for other in (f"{tree}/./secret.jpg", f"{tree}/database/secret.jpg"):
        with pytest.raises(ImageNotAllowedError):
            read(loader, other)


def test_a_literal_path_is_no_way_round_the_other_rules(tree):
    """A literal named pipe is not opened for reading."""
    os.mkfifo(tree / "pipe")
    with pytest.raises(ImageUnreadableError):
        read(ContentLoader([], {str(tree / "pipe")}), str(tree / "pipe"))


@pytest.mark.parametrize(
    "uri",
    [
        "simplecache::file:///etc/passwd",
        "filecache::file:///etc/passwd",
        "zip://a::file:///etc/passwd.zip",
        "memory://a",
        "ftp://127.0.0.1/a",
        "sftp://127.0.0.1/a",
        "ssh://127.0.0.1/a",
        "data://text",
        "python://a",
        "github://a",
        "gopher://127.0.0.1/a",
        "s3::file:///etc/passwd",
        "simplecache::s3://b/a",
        "://a",
        " s3://b/a",
    ],
)
def test_an_unknown_scheme(uri):
    """A scheme that fsspec could open behind the rules is refused."""
    with pytest.raises((InvalidImageError, ImageNotAllowedError)) as caught:
        read(ContentLoader(), uri)
    assert caught.value.decision is Decision.RECORD


# Object storage


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """Run an S3 server with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket="photos")
        client.put_object(Bucket="photos", Key="a/b c.jpg", Body=PHOTO)
        client.put_object(Bucket="photos", Key="empty.jpg", Body=b"")
        client.put_object(Bucket="photos", Key="large.jpg", Body=b"x" * 3000)
        client.close()
        yield endpoint
    finally:
        server.stop()


def connection(endpoint: str) -> str:
    """Return an Airflow connection to an S3 server, as JSON."""
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "testing",
            "password": "5ecre7",
            "extra": {
                "endpoint_url": endpoint,
                "region_name": "us-east-1",
                "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 2},
            },
        }
    )


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the S3 server Airflow's connection ``aws_content``."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_CONTENT", connection(s3_endpoint))


@pytest.mark.usefixtures("s3")
class TestS3:
    """Objects of a real S3 server, through ObjectStoragePath."""

    def test_an_object(self):
        """The bytes of an object are read, with their digest."""
        payload = ContentLoader().load(Image("k", "s3://aws_content@photos/a/b c.jpg"))
        assert payload.content == PHOTO
        assert payload.digest == hashlib.sha256(PHOTO).hexdigest()
        assert payload.url is None

    def test_no_such_object(self):
        """A missing key is this image's error."""
        with pytest.raises(ImageUnreadableError, match="does not exist"):
            read(ContentLoader(), "s3://aws_content@photos/missing.jpg")

    @pytest.mark.parametrize("path", ["a", "a/", ""])
    def test_a_folder_or_bucket(self, path):
        """A URI that names no object is this image's error, and is not tried again."""
        with pytest.raises((ImageUnreadableError, ImageEmptyError)):
            read(ContentLoader(), f"s3://aws_content@photos/{path}")

    def test_no_such_bucket(self):
        """A missing bucket is this image's error, since a run may have images in several."""
        with pytest.raises(ImageUnreadableError):
            read(ContentLoader(), "s3://aws_content@nobucket/a.jpg")

    def test_an_empty_object(self):
        """Zero bytes are not sent."""
        with pytest.raises(ImageEmptyError):
            read(ContentLoader(), "s3://aws_content@photos/empty.jpg")

    def test_an_object_that_is_too_large(self):
        """The limit holds for objects as for files."""
        with pytest.raises(ImageTooLargeError):
            read(ContentLoader(max_bytes=2999), "s3://aws_content@photos/large.jpg")


# Requests to the storage


class Recorder(Handler):
    """Passes requests on to an S3 server, and records them."""

    server_address: str
    requests: list[tuple[str, str]]

    def answer(self) -> None:
        """Pass one request on."""
        self.requests.append((self.command, self.path))
        connection = http.client.HTTPConnection(self.server_address)
        connection.request(self.command, self.path, self.body(), dict(self.headers))
        response = connection.getresponse()
        body = response.read()
        connection.close()
        self.respond(body, status=response.status, headers={"Content-Type": "application/xml"})

    do_HEAD = Handler.do_GET  # noqa: N815 (the name of the base class)


@dataclass
class Recording:
    """A bucket, and the requests to its server."""

    bucket: str
    requests: list[tuple[str, str]]


numbers = itertools.count(1)


@pytest.fixture
def recording(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """Record the requests to the S3 server through a connection of Airflow.

    It is a new one for each test, since Airflow keeps the file system of a connection.
    """

    class Server(Recorder):
        server_address = s3_endpoint.removeprefix("http://")
        requests: list[tuple[str, str]] = []  # noqa: RUF012 (one a test)

    with serving(Server) as url:
        conn_id = f"aws_{next(numbers)}"
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection(url))
        yield Recording(f"s3://{conn_id}@photos", Server.requests)


@pytest.mark.parametrize("count", [1, 5])
def test_an_object_takes_one_request(recording, count):
    """Neither the object's size nor the list of buckets is asked for, also at the first access."""
    loader = ContentLoader()
    for _ in range(count):
        assert read(loader, f"{recording.bucket}/a/b c.jpg") == PHOTO
    assert recording.requests == [("GET", "/photos/a/b%20c.jpg")] * count


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("empty.jpg", ImageEmptyError),
        ("missing.jpg", ImageUnreadableError),
        ("large.jpg", ImageTooLargeError),
    ],
)
def test_an_object_that_cannot_be_used_takes_one_request(recording, name, expected):
    """An empty, a missing and a large object are recognized by the same request."""
    with pytest.raises(expected):
        read(ContentLoader(max_bytes=2999), f"{recording.bucket}/{name}")
    assert recording.requests == [("GET", f"/photos/{name}")]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", ImageUnreadableError),
        (403, "InvalidAccessKeyId", ImageStorageError),
        (403, "RequestTimeTooSkewed", ImageStorageError),
        (404, "NoSuchBucket", ImageStorageError),
        (400, "ExpiredToken", ImageStorageError),
        (400, "InvalidToken", ImageStorageError),
        (404, "NoSuchKey", ImageUnreadableError),
        (403, "InvalidObjectState", ImageUnreadableError),
        (500, "InternalError", StorageError),
        (503, "SlowDown", StorageError),
    ],
)
def test_an_error_of_the_storage(monkeypatch, status, code, expected):
    """A refused object is the image's error, the credentials are the worker's; failures pass.

    Where the author named the storage, the worker's faults end the run.
    """

    class Refusing(Handler):
        def answer(self) -> None:
            self.respond(
                f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(),
                status=status,
                headers={"Content-Type": "application/xml"},
            )

    with serving(Refusing) as url:
        monkeypatch.setenv(f"AIRFLOW_CONN_AWS_{code.upper()}", connection(url))
        storage = f"s3://aws_{code.lower()}@photos"
        with pytest.raises(expected) as caught:
            read(ContentLoader(), f"{storage}/a.jpg")
        assert type(caught.value) is expected
        assert not caught.value.is_final
        of_author = StorageAccessError if expected is ImageStorageError else expected
        with pytest.raises(of_author):
            read(ContentLoader(storages=[storage]), f"{storage}/a.jpg")


CONNECTIONS = {
    "http": {"conn_type": "http", "host": "127.0.0.1", "login": "user", "password": "s3cret"},
    "postgres": {"conn_type": "postgres", "login": "user", "password": "s3cret"},
    "imagetag": {"conn_type": "imagetag", "login": "AKID", "password": "s3cret"},
    "redis": {"conn_type": "redis", "password": "s3cret"},
    "google": {"conn_type": "google_cloud_platform"},
    "generic": {"conn_type": "generic", "login": "user", "password": "s3cret"},
    "none": {"conn_type": ""},
}


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_data_may_not_name_a_connection_of_another_type(kind, monkeypatch):
    """Its login would be sent to the bucket that the data names; nothing of it is opened."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{kind.upper()}", json.dumps(CONNECTIONS[kind]))
    with pytest.raises(ImageNotAllowedError, match=f"the connection '{kind}' of the type") as error:
        read(ContentLoader(), f"s3://{kind}@photos/a.jpg")
    assert "s3cret" not in str(error.value)
    assert not error.value.is_final


@pytest.mark.parametrize(
    "value",
    ["{", "no-json ://", "[]", '{"conn_type": 7}', "aws://%zz@:x:y", '{"extra": "x"}', "null"],
)
def test_a_malformed_connection_that_data_names_is_the_image_s_error(value, monkeypatch):
    """Whatever Airflow raises for it."""
    monkeypatch.setenv("AIRFLOW_CONN_ODD", value)
    with pytest.raises((ImageUnreadableError, ImageNotAllowedError)):
        read(ContentLoader(), "s3://odd@photos/a.jpg")


@pytest.mark.parametrize(
    "extra",
    [
        {"role_arn": "arn:aws:iam::1:role/none"},
        {"profile_name": "none"},
        {"region_name": 7},
        {"endpoint_url": "no url"},
        {"config_kwargs": {"no_such": 1}},
        {"session_kwargs": {"no_such": 1}},
        {"assume_role_method": "no_such", "role_arn": "arn:aws:iam::1:role/none"},
        {"service_config": "x"},
    ],
    ids=str,
)
def test_an_unusable_connection_that_data_names_is_the_image_s_error(extra, monkeypatch):
    """A role that cannot be had, a missing profile, nonsense: one row must not end a run."""
    fields = {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1", **extra}
    extras = {"config_kwargs": {"retries": {"max_attempts": 0}}, **fields}
    document = {
        "conn_type": "aws",
        "login": "the-login",
        "password": "the-password",
        "extra": extras,
    }
    monkeypatch.setenv("AIRFLOW_CONN_ODD_AWS", json.dumps(document))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises((ImageUnreadableError, StorageError)):
        read(ContentLoader(), "s3://odd_aws@photos/a.jpg")


def test_allowed_connections_narrow_what_data_may_name(monkeypatch):
    """The list holds for data only, not for the storages of the DAG file."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "aws"}))
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_CONNECTIONS", "none")
    for allowed in ({"photos_s3"}, allowed_connections()):
        loader = ContentLoader(connections=ConnectionPolicy(allowed=allowed))
        with pytest.raises(ImageNotAllowedError, match="allowed_connections"):
            read(loader, "s3://other@photos/a.jpg")


def test_one_connection_for_all_that_data_names(bucket, monkeypatch):
    """A URI that names none is read with it; one that names another is refused."""
    bucket.put("a.jpg", b"an image")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    # The worker's own credentials are of no use.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    loader = ContentLoader(
        connections=ConnectionPolicy(only="aws_default"), storages=[f"s3://other@{bucket.name}"]
    )
    for named in ("", "aws_default@", "other@"):
        assert read(loader, f"s3://{named}{bucket.name}/a.jpg") == b"an image"
    with pytest.raises(ImageNotAllowedError, match="storage_conn_id='aws_default' only"):
        read(loader, f"s3://imagetag_default@{bucket.name}/a.jpg")
    with pytest.raises(ImageNotAllowedError, match="not one of a storage for gs://"):
        read(loader, f"gs://{bucket.name}/a.jpg")
    missing = ContentLoader(connections=ConnectionPolicy(only="none"))
    with pytest.raises(StorageAccessError, match="There is no connection 'none'"):
        read(missing, f"s3://{bucket.name}/a.jpg")


def test_a_path_that_may_not_be_followed_is_the_image_s_error(tmp_path, monkeypatch):
    """An error that was not foreseen, from the file system or elsewhere."""

    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os.path, "realpath", refuse)
    loader = ContentLoader()
    with pytest.raises(ImageUnreadableError, match="Permission denied"):
        read(loader, "/proc/1/cwd")


def file_systems(folder: Path) -> dict[str, tuple[Any, str]]:
    """Return file systems that have no ranged request, each with a folder."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.implementations.memory import MemoryFileSystem
    from pyarrow.fs import LocalFileSystem as ArrowLocal

    return {
        "local": (LocalFileSystem(), str(folder)),
        "memory": (MemoryFileSystem(), "/start"),
        "arrow": (ArrowFSWrapper(ArrowLocal()), str(folder)),
    }


@pytest.mark.parametrize("kind", ["local", "memory", "arrow"])
def test_the_start_of_a_file_in_any_file_system(tmp_path, kind):
    """At most the bytes that were asked for are returned, and none of an empty file."""
    file_system, folder = file_systems(tmp_path)[kind]
    for name, data in (("a", b"abcdef"), ("empty", b"")):
        file_system.pipe_file(f"{folder}/{name}", data)
    found = [read_start(Place(file_system, f"{folder}/a"), size) for size in (1, 5, 6, 7, 1000)]
    assert found == [b"a", b"abcde", b"abcdef", b"abcdef", b"abcdef"]
    assert read_start(Place(file_system, f"{folder}/empty"), 10) == b""
    with pytest.raises(FileNotFoundError):
        read_start(Place(file_system, f"{folder}/missing"), 10)


class RefusingFileSystem:
    """A file system whose requests fail."""

    async_impl = True

    def __init__(self, error: Exception) -> None:
        self._error = error

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        raise self._error


class HttpError(Exception):
    """An error with the status as its code, as Google's storage raises it."""

    def __init__(self, code: int) -> None:
        super().__init__("the storage's answer")
        self.code = code


def test_an_empty_object_of_another_storage():
    """The status of the answer tells that there is no byte to return, and not the text."""
    assert read_start(Place(RefusingFileSystem(HttpError(416)), "a"), 10) == b""
    for error in (HttpError(500), OSError(errno.EINVAL, "416")):
        with pytest.raises(type(error)):
            read_start(Place(RefusingFileSystem(error), "a"), 10)


def test_a_storage_that_is_down(monkeypatch):
    """The error may be retried; nothing was sent to the service, and the message has no secret."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DOWN", connection(f"http://127.0.0.1:{port}"))
    with pytest.raises(StorageError) as caught:
        read(ContentLoader(), "s3://aws_down@photos/a.jpg")
    assert caught.value.decision is Decision.RETRY
    assert caught.value.billing is Billing.NOT_SENT
    assert "5ecre7" not in caught.value.message


@pytest.mark.parametrize("place", ["AKID:5ecre7@photos", "AKID:5ecre7/x@photos", "AKID:a#5ecre7@p"])
def test_a_password_in_a_storages_uri(place):
    """It is no connection, and no message of the storage's library repeats it."""
    with pytest.raises(ImageNotAllowedError) as caught:
        read(ContentLoader(), f"s3://{place}/a.jpg")
    assert "ecre7" not in caught.value.message


def test_a_connection_that_is_not_there():
    """The id is in the URI, which is data: it is this image's fault and not the run's."""
    with pytest.raises(ImageUnreadableError, match="no_such_connection"):
        read(ContentLoader(), "s3://no_such_connection@photos/a.jpg")


@pytest.mark.filterwarnings("ignore:UPath")
def test_a_storage_whose_package_is_missing():
    """The scheme is in the URI, which is data: the failure names the package to install."""
    with pytest.raises(ImageUnreadableError, match="webhdfs"):
        read(ContentLoader(), "webhdfs://host/a.jpg")
