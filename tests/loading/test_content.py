"""What the service is given of an image, and what the worker refuses to read."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_imagetag.errors import (
    Billing,
    ConfigurationError,
    Decision,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.loading import content
from airflow_imagetag.loading.content import ContentLoader
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
def reader(tree: Path) -> ContentLoader:
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
        (Image("a"), False, False),
    ],
)
def test_what_is_at_hand_needs_no_thread(image, with_sha256, without, needs_sha256):
    """A URL and a few bytes are ready at once; a file, an object and many bytes are not."""
    expected = with_sha256 if needs_sha256 else without
    assert ContentLoader(needs_sha256=needs_sha256).is_quick(image) is expected


def test_a_url_that_the_worker_fetches_is_not_at_hand():
    """It may take its time."""
    assert not ContentLoader(fetch=len).is_quick(Image("a", "https://host/a"))  # type: ignore[arg-type]


def test_without_sha256_equal_bytes_are_told_all_the_same(tree):
    """Within one reader; nothing that could be taken for a SHA-256 gets out."""
    reader = ContentLoader([str(tree)], needs_sha256=False)
    file = reader.payload(Image("a", str(tree / "data" / "a.jpg")))
    given = reader.payload(Image("b", content=PHOTO))
    other = reader.payload(Image("c", content=SECRET))
    assert file.digest == given.digest != other.digest
    assert file.sha256 is given.sha256 is other.sha256 is None
    assert file.digest != ContentLoader(needs_sha256=False).payload(Image("b", None, PHOTO)).digest


def read(reader: ContentLoader, uri: str) -> bytes | None:
    """Return the bytes behind a URI."""
    return reader.payload(Image("k", uri)).content


@pytest.mark.parametrize("uri", ["https://h/a.jpg?X-Amz-Signature=x", "HTTP://h/a"])
def test_a_url_is_handed_on(uri):
    """The service fetches it; the worker opens no connection."""
    payload = ContentLoader().payload(Image("k", uri))
    assert (payload.url, payload.content, payload.digest) == (uri, None, None)


def test_bytes_go_before_the_uri():
    """Bytes that are at hand are sent with their digest, and nothing is read."""
    payload = ContentLoader().payload(Image("k", "/etc/passwd", PHOTO))
    assert (payload.url, payload.content) == (None, PHOTO)
    assert payload.digest == hashlib.sha256(PHOTO).hexdigest()


def test_an_image_of_nothing():
    """Without URI and bytes there is nothing to read."""
    with pytest.raises(InvalidImageError):
        ContentLoader().payload(Image("k"))


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
def test_a_file_inside_an_allowed_folder(reader, tree, uri):
    """It is read, however its path is written."""
    assert read(reader, uri.format(root=tree)) == PHOTO


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
    """It is refused, however its path is written, and whether or not it is there."""
    monkeypatch.chdir(tree)
    reader = ContentLoader([str(tree / "data" / "sub" / "..")])
    uri = uri.format(root=tree)
    if uri == f"{tree}/data":
        reader = ContentLoader([str(tree / "data" / "sub")])
    if "%2e" in uri and not uri.startswith("file:"):
        # In a plain path the percents are letters: inside the folder, and not there.
        with pytest.raises(ImageUnreadableError):
            read(reader, uri)
        return
    with pytest.raises(ImageNotAllowedError, match="allowed_local_paths") as caught:
        read(reader, uri)
    assert caught.value.decision is Decision.RECORD


@pytest.mark.parametrize("folders", [[], ["{root}/data"]])
def test_nothing_is_allowed_by_default(tree, folders):
    """Without a folder in the configuration no file is read at all."""
    reader = ContentLoader([folder.format(root=tree) for folder in folders])
    if folders:
        assert read(reader, f"{tree}/data/a.jpg") == PHOTO
    else:
        with pytest.raises(ImageNotAllowedError):
            read(reader, f"{tree}/data/a.jpg")


def test_the_root_folder_allows_all(tree):
    """The whole disk may be allowed, if that is the wish."""
    assert read(ContentLoader(["/"]), f"{tree}/secret.jpg") == SECRET


def test_symlinks_out_of_the_folder(reader, tree):
    """A link to a file or folder outside is refused; one that stays inside is read."""
    (tree / "data/link.jpg").symlink_to(tree / "secret.jpg")
    (tree / "data/folder").symlink_to(tree / "database")
    (tree / "data/chain.jpg").symlink_to(tree / "data/link.jpg")
    (tree / "data/inside.jpg").symlink_to(tree / "data/a.jpg")
    for name in ("link.jpg", "folder/secret.jpg", "chain.jpg"):
        with pytest.raises(ImageNotAllowedError):
            read(reader, f"{tree}/data/{name}")
    assert read(reader, f"{tree}/data/inside.jpg") == PHOTO


def test_an_allowed_folder_may_be_a_symlink(tree):
    """The folder's own link is followed, and its files are inside under both names."""
    (tree / "link").symlink_to(tree / "data")
    reader = ContentLoader([str(tree / "link")])
    assert read(reader, f"{tree}/link/a.jpg") == read(reader, f"{tree}/data/a.jpg") == PHOTO


def test_a_loop_of_symlinks(reader, tree):
    """A link to itself is this image's error."""
    (tree / "data/loop.jpg").symlink_to(tree / "data/loop.jpg")
    with pytest.raises(ImageUnreadableError):
        read(reader, f"{tree}/data/loop.jpg")


def test_what_is_no_regular_file(reader, tree):
    """A folder, a named pipe and a socket are refused at once; nobody waits for a writer."""
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
                read(reader, f"{tree}/data/{name}")


def test_an_endless_device():
    """A device has no end, so it is not read even where its folder is allowed."""
    with pytest.raises(ImageUnreadableError, match="not a regular file"):
        read(ContentLoader(["/dev"]), "/dev/zero")


@pytest.mark.parametrize("name", ["missing.jpg", "a.jpg/b.jpg", "x" * 300, "a\x00b.jpg", "\ud800"])
def test_a_file_that_cannot_be_opened(reader, tree, name):
    """Not there, no folder, too long, or a name that no file can have: this image's error."""
    with pytest.raises((ImageUnreadableError, ImageNotAllowedError)) as caught:
        read(reader, f"{tree}/data/{name}")
    assert caught.value.decision is Decision.RECORD
    caught.value.message.encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(reader, tree):
    """A file that the worker may not read is this image's error."""
    (tree / "data/a.jpg").chmod(0)
    with pytest.raises(ImageUnreadableError, match="Permission denied"):
        read(reader, f"{tree}/data/a.jpg")


def test_an_empty_file(reader, tree):
    """Zero bytes are not sent."""
    with pytest.raises(ImageEmptyError):
        read(reader, f"{tree}/data/empty.jpg")


def test_a_file_that_is_too_large(reader, tree):
    """More than the limit is not read into memory; exactly the limit is."""
    path = tree / "data/large.jpg"
    with path.open("wb") as file:
        file.truncate(content.MAX_IMAGE_BYTES)
    assert len(read(reader, str(path)) or b"") == content.MAX_IMAGE_BYTES
    with path.open("wb") as file:
        file.truncate(10 * 1024**4)
    with pytest.raises(ImageTooLargeError):
        read(reader, str(path))


@pytest.mark.parametrize("folder", ["data", "./data", "~/data", "", "file:///data"])
def test_a_relative_folder_is_an_error(folder):
    """What it allows would depend on where the worker was started."""
    with pytest.raises(ConfigurationError, match="absolute"):
        ContentLoader([folder])


@pytest.mark.parametrize("uri", ["{root}/secret.jpg", "file://{root}/secret.jpg"])
def test_a_literal_path_is_read(tree, uri):
    """What the DAG's author wrote may be read, in the very words that were written."""
    uri = uri.format(root=tree)
    reader = ContentLoader([], frozenset({uri}))
    assert read(reader, uri) == SECRET
    for other in (f"{tree}/./secret.jpg", f"{tree}/database/secret.jpg"):
        with pytest.raises(ImageNotAllowedError):
            read(reader, other)


def test_a_literal_path_is_no_way_round_the_other_rules(tree):
    """A literal named pipe is not waited for."""
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
    """What fsspec could open behind the rules is refused, and the message says what is not."""
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
    """Reading through ObjectStoragePath and a real S3 server."""

    def test_an_object(self):
        """The bytes of an object are read, with their digest."""
        payload = ContentLoader().payload(Image("k", "s3://aws_content@photos/a/b c.jpg"))
        assert payload.content == PHOTO
        assert payload.digest == hashlib.sha256(PHOTO).hexdigest()
        assert payload.url is None

    def test_no_such_object(self):
        """A key that is not there is this image's error."""
        with pytest.raises(ImageUnreadableError, match="does not exist"):
            read(ContentLoader(), "s3://aws_content@photos/missing.jpg")

    @pytest.mark.parametrize("path", ["a", "a/", ""])
    def test_a_folder_or_bucket(self, path):
        """What names no object is this image's error, and is not tried again."""
        with pytest.raises((ImageUnreadableError, ImageEmptyError)):
            read(ContentLoader(), f"s3://aws_content@photos/{path}")

    def test_no_such_bucket(self):
        """A bucket that is not there is this image's error, for images may be in many."""
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


def test_a_storage_that_is_down(monkeypatch):
    """It is retried; nothing was sent to the service, and no secret is in the message."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DOWN", connection(f"http://127.0.0.1:{port}"))
    with pytest.raises(StorageError) as caught:
        read(ContentLoader(), "s3://aws_down@photos/a.jpg")
    assert caught.value.decision is Decision.RETRY
    assert caught.value.billing is Billing.NOT_SENT
    assert "5ecre7" not in caught.value.message


def test_a_connection_that_is_not_there():
    """The id stands in the URI, which is data: it is this image's fault and not the run's."""
    with pytest.raises(ImageUnreadableError, match="no_such_connection"):
        read(ContentLoader(), "s3://no_such_connection@photos/a.jpg")


@pytest.mark.filterwarnings("ignore:UPath")
def test_a_storage_whose_package_is_missing():
    """The scheme stands in the URI, which is data: the failure says what to install."""
    with pytest.raises(ImageUnreadableError, match="webhdfs"):
        read(ContentLoader(), "webhdfs://host/a.jpg")
