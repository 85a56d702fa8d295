"""The hook labels one image over a real connection of Airflow."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web_servers import Handler, serving

from airflow_imagetag import errors
from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.testing import Emulator, Faults
from airflow_imagetag.transport import nonblocking

VARIABLE = "AIRFLOW_CONN_IMAGETAG_DEFAULT"
KEY = "5ecre7KeyOfTheEmulator0000000000"

Tag = Callable[[ImageTagHook, Any], TagResult]


def tag(hook: ImageTagHook, image: Any) -> TagResult:
    """Label with the blocking method."""
    return hook.tag(image)


def atag(hook: ImageTagHook, image: Any) -> TagResult:
    """Label in an event loop, with a connection for this call alone."""
    return asyncio.run(hook.atag(image))


def atag_inside(hook: ImageTagHook, image: Any) -> TagResult:
    """Label in an event loop, inside ``async with``."""

    async def main() -> TagResult:
        async with hook:
            return await hook.atag(image)

    return asyncio.run(main())


WAYS = {"tag": tag, "atag": atag, "atag inside": atag_inside}


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Tag:
    """Return each of the three ways to label one image."""
    return request.param


@pytest.fixture
def photograph(photographs: list[Path]) -> bytes:
    """Read a photograph."""
    return photographs[0].read_bytes()


def connect(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, **changes: Any) -> None:
    """Make the emulator ``imagetag_default``, with some fields changed and extras added."""
    fields = json.loads(emulator.connection_json)
    fields["extra"] = {**fields["extra"], **changes.pop("extra", {})}
    monkeypatch.setenv(VARIABLE, json.dumps({**fields, **changes}))


@pytest.fixture
def image_url(photograph: bytes) -> Iterator[str]:
    """Serve the photograph over HTTP."""

    class Photograph(Handler):
        def answer(self) -> None:
            self.respond(photograph)

    with serving(Photograph) as url:
        yield f"{url}/a.jpg?X-Amz-Signature=5ecre7&id=1"


@pytest.fixture(scope="module")
def s3_endpoint(photographs: list[Path]) -> Iterator[str]:
    """Run an S3 server that holds the photograph.

    One for all tests: Airflow keeps the file system of a connection id for the whole process.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket="hook-photos")
        body = photographs[0].read_bytes()
        client.put_object(Bucket="hook-photos", Key="a.jpg", Body=body)
        client.close()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3_uri(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the S3 server Airflow's connection ``aws_hook``, and name the photograph in it."""
    extra = {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_HOOK", json.dumps(connection))
    return "s3://aws_hook@hook-photos/a.jpg"


def check(result: TagResult, emulator: Emulator) -> None:
    """Check that the result holds labels and that one call was billed."""
    assert result.labels
    probabilities = [label.probability for label in result.labels]
    assert probabilities == sorted(probabilities, reverse=True)
    assert result.api == "picture_classify"
    assert result.tagged_at.tzinfo is not None
    assert emulator.stats.billed == 1


@pytest.mark.parametrize("encoding", ["multipart", "base64"])
def test_bytes(way, emulator, photograph, encoding, monkeypatch):
    """Bytes are labelled in either encoding; their digest is the key."""
    connect(monkeypatch, emulator, extra={"image_encoding": encoding})
    result = way(ImageTagHook(), photograph)
    check(result, emulator)
    assert result.image_key.startswith("sha256:")
    assert result.image_uri is None


def test_a_url(way, emulator, image_url, monkeypatch):
    """The service downloads a URL; the URL's signature is not in the result."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    result = way(ImageTagHook(), image_url)
    check(result, emulator)
    assert result.image_uri == result.image_key == image_url.partition("?")[0] + "?id=1"


def test_an_object(way, emulator, s3_uri):
    """An object of a storage is read through its connection and sent as bytes."""
    result = way(ImageTagHook(), s3_uri)
    check(result, emulator)
    assert result.image_uri == s3_uri


def test_a_local_file(way, emulator, photographs, monkeypatch):
    """A file inside an allowed folder is sent."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", f"/x, {photographs[0].parent}")
    check(way(ImageTagHook(), str(photographs[0])), emulator)


def test_an_image(way, emulator, photograph):
    """An Image keeps its own key."""
    result = way(ImageTagHook(), Image("k", "s3://b/a.jpg", photograph))
    check(result, emulator)
    assert (result.image_key, result.image_uri) == ("k", "s3://b/a.jpg")


def test_all_ways_find_the_same(emulator, photograph):
    """The labels of an image are the same, blocking or not."""
    found = {way(ImageTagHook(), photograph).labels for way in WAYS.values()}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (b"", errors.ImageEmptyError),
        ("", errors.InvalidImageError),
        (5, errors.InvalidImageError),
        (None, errors.InvalidImageError),
        ("ftp://host/a.jpg", errors.InvalidImageError),
        ("/etc/passwd", errors.ImageNotAllowedError),
        ("s3://no_such_connection@b/a.jpg", errors.ImageStorageError),
        (b"x" * 7_000_000, errors.ImageTooLargeError),
    ],
)
def test_an_image_that_is_not_sent(way, emulator, image, expected):
    """An image that cannot be sent raises its typed error, and the service gets no request."""
    with pytest.raises(expected) as caught:
        way(ImageTagHook(), image)
    assert type(caught.value) is expected
    assert caught.value.billing is errors.Billing.NOT_SENT
    assert emulator.stats.requests == 0


def test_an_image_that_is_too_large_is_made_smaller(way, emulator, photograph):
    """It is an error unless asked for. Bytes after the picture in the file are not sent."""
    large = photograph + bytes(7_000_000)
    with pytest.raises(errors.ImageTooLargeError, match="oversize='downscale'"):
        way(ImageTagHook(), large)
    result = way(ImageTagHook(oversize="downscale"), large)
    assert result.labels[0].name == way(ImageTagHook(), photograph).labels[0].name
    assert emulator.stats.requests == 2


def test_a_file_that_is_too_large_for_any_service_is_read_to_be_made_smaller(
    way, emulator, photograph, tmp_path, monkeypatch
):
    """The limit of downscaling is larger, and has the same error."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(tmp_path))
    for name, size in (("scan", 25), ("huge", 65)):
        with (tmp_path / name).open("wb") as file:
            file.write(photograph)
            file.truncate(size * 2**20)
    with pytest.raises(errors.ImageTooLargeError, match="larger than 20 MB"):
        way(ImageTagHook(), str(tmp_path / "scan"))
    assert way(ImageTagHook(oversize="downscale"), str(tmp_path / "scan")).labels
    with pytest.raises(errors.ImageTooLargeError, match="larger than 64 MB"):
        way(ImageTagHook(oversize="downscale"), str(tmp_path / "huge"))


def test_an_unknown_oversize_is_refused():
    """The constructor raises the error."""
    with pytest.raises(errors.ConfigurationError, match="oversize must be"):
        ImageTagHook(oversize="shrink")


@pytest.mark.parametrize(
    ("image", "expected", "code"),
    [
        (b"not an image", errors.ImageDecodeError, "-1102"),
        ("https://h.invalid/" + "a" * 2000, errors.ParameterTooLongError, "-1304"),
    ],
)
def test_an_image_that_the_service_refuses(way, emulator, image, expected, code):
    """The service's code is in the error."""
    with pytest.raises(expected) as caught:
        way(ImageTagHook(), image)
    assert (caught.value.code, caught.value.status) == (code, 200)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(error_rates={500: 1}), errors.ServiceUnavailableError),
        (Faults(error_rates={503: 1}), errors.ServiceUnavailableError),
        (Faults(error_rates={404: 1}), errors.EndpointError),
        (Faults(error_rates={400: 1}), errors.InvalidRequestError),
        (Faults(drop_rate=1), errors.AnswerLostError),
        (Faults(drop_after_work_rate=1), errors.AnswerLostError),
        (Faults(latency_seconds=5), errors.AnswerLostError),
        *(
            (Faults(garbage_rate=1, garbage=kind), errors.MalformedAnswerError)
            for kind in (
                "html",
                "truncated",
                "empty",
                "not_json",
                "missing_data",
                "bad_probability",
            )
        ),
    ],
)
def test_a_fault_of_the_service_or_the_network(
    way, emulator, faults, expected, photograph, monkeypatch
):
    """Each fault raises its typed error after one request."""
    connect(monkeypatch, emulator, extra={"timeout_seconds": 0.5 if faults.latency_seconds else 5})
    emulator.faults = faults
    with pytest.raises(expected) as caught:
        way(ImageTagHook(), photograph)
    assert type(caught.value) is expected
    assert emulator.stats.requests == 1


def test_over_the_quota(way, emulator, photograph):
    """The error of a throttled call tells how long to wait; the hook does not wait by itself."""
    emulator.faults = Faults(requests_per_second=0.01, retry_after_seconds=17)
    hook = ImageTagHook()
    hook.tag(photograph)
    with pytest.raises(errors.ThrottledError) as caught:
        way(ImageTagHook(), photograph)
    assert caught.value.retry_after_seconds == 17


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"password": "wrong"}, errors.AuthenticationError),
        ({"login": "AKIDwrong"}, errors.AuthenticationError),
        ({"extra": {"app_id": "99"}}, errors.AuthenticationError),
        ({"password": None}, errors.ConfigurationError),
        ({"extra": {"app_id": ""}}, errors.ConfigurationError),
        ({"extra": {"api": "unknown"}}, errors.ConfigurationError),
        ({"extra": {"timeout_seconds": "soon"}}, errors.ConfigurationError),
        ({"host": "http://127.0.0.1/path"}, errors.ConfigurationError),
    ],
)
def test_a_wrong_connection(way, emulator, changes, expected, photograph, monkeypatch):
    """The account's fault differs from an error in the connection itself."""
    connect(monkeypatch, emulator, **changes)
    with pytest.raises(expected) as caught:
        way(ImageTagHook(), photograph)
    assert type(caught.value) is expected
    assert emulator.stats.billed == 0


@pytest.mark.filterwarnings("ignore:Encountered")  # Airflow 2 warns of such an extra
@pytest.mark.parametrize("extra", ["not JSON", "[1]", '"text"', "{"])
def test_an_extra_that_is_no_object(emulator, extra, photograph, monkeypatch):
    """The error names the connection; the extra does not count as empty."""
    from airflow.providers.common.compat.sdk import Connection

    fields = json.loads(emulator.connection_json)
    fields.pop("extra")
    connection = Connection(conn_id="imagetag_default", **fields)
    connection.extra = extra
    monkeypatch.setattr(ImageTagHook, "get_connection", lambda *_: connection)
    with pytest.raises(errors.ConfigurationError, match=r"'imagetag_default': extra must be"):
        ImageTagHook().tag(photograph)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that lists the warnings about connections."""
    names = ("airflow_imagetag.backends.accounts", logging.WARNING)
    return lambda: [text for name, level, text in caplog.record_tuples if (name, level) == names]


MISSPELT = {"request_per_second": "5ecre7", "Timeout-Seconds": 5, "qqq": ["5ecre7"], "zzz": ""}


def test_misspelt_names_of_the_extra_are_logged(way, emulator, photograph, monkeypatch, warned):
    """One warning has the connection, the names and suggestions, and no value.

    The image is labelled all the same. A name without a value is not in the warning.
    """
    connect(monkeypatch, emulator, extra=MISSPELT)
    assert way(ImageTagHook(), photograph).labels
    [warning] = warned()
    assert warning == (
        "Connection 'imagetag_default': nothing reads these names in extra: 'request_per_second' "
        "(is requests_per_second meant?), 'Timeout-Seconds' (is timeout_seconds meant?), 'qqq'. "
        "Correct or remove them."
    )


def test_names_that_are_read_are_not_logged(emulator, photograph, monkeypatch, warned):
    """The interface of the connection need not use them."""
    extra = {"region": "ap-beijing", "scenes": "WEB", "verify": True, "max_in_flight": 3}
    connect(monkeypatch, emulator, extra=extra)
    assert ImageTagHook().tag(photograph).labels
    assert warned() == []


def test_a_connection_of_another_type(emulator, photograph, monkeypatch):
    """The error of a missing field names the type: most likely another connection was meant."""
    connect(monkeypatch, emulator, conn_type="postgres", extra={"app_id": ""})
    with pytest.raises(errors.ConfigurationError, match=r"app_id.*'postgres'.*'imagetag'"):
        ImageTagHook().tag(photograph)
    # The fields decide, and not the type.
    connect(monkeypatch, emulator, conn_type="postgres")
    assert ImageTagHook().tag(photograph).labels
    connect(monkeypatch, emulator, extra={"app_id": ""})
    with pytest.raises(errors.ConfigurationError) as caught:
        ImageTagHook().tag(photograph)
    assert "type" not in caught.value.message


# test_connection


def test_a_good_connection_is_not_billed(emulator):
    """Endpoint and signature are proved without labelling an image."""
    ok, message = ImageTagHook().test_connection()
    assert ok, message
    assert emulator.url in message
    assert emulator.stats.requests == 1
    assert emulator.stats.billed == 0
    assert emulator.stats.rejected_signatures == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": KEY}, ["AuthenticationError", "SecretKey"]),
        ({"login": "AKIDwrong"}, ["AuthenticationError", "SecretId"]),
        ({"extra": {"app_id": "99"}}, ["AuthenticationError", "app_id"]),
        ({"login": None}, ["ConfigurationError", "login"]),
        ({"password": ""}, ["ConfigurationError", "password"]),
        ({"extra": {"app_id": "abc"}}, ["ConfigurationError", "app_id"]),
        ({"host": "no-such-host.invalid"}, ["ConnectionFailedError", "no-such-host.invalid"]),
        ({"schema": "https"}, ["ConnectionFailedError"]),
    ],
)
def test_a_bad_connection(emulator, changes, words, monkeypatch):
    """The message names the error and the field to check, without a key; nothing is billed."""
    connect(monkeypatch, emulator, **changes)
    ok, message = ImageTagHook().test_connection()
    assert not ok
    for word in words:
        assert word in message
    assert KEY not in message
    assert emulator.stats.billed == 0


def test_an_unreachable_service(emulator, monkeypatch):
    """The message says that nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    connect(monkeypatch, emulator, port=port)
    ok, message = ImageTagHook().test_connection()
    assert not ok
    assert "ConnectionFailedError" in message
    assert "nothing was sent" in message


def test_another_server(monkeypatch, emulator, image_url):
    """The error of a web server that is not the service is not that of a refused key."""
    port = int(image_url.rpartition(":")[2].partition("/")[0])
    connect(monkeypatch, emulator, port=port)
    ok, message = ImageTagHook().test_connection()
    assert not ok
    assert "AuthenticationError" not in message


# Shared connections and signatures


def test_a_signature_is_made_once(emulator, small_jpegs):
    """Blocking and non-blocking calls of one hook share a signature."""
    hook = ImageTagHook()
    for content in small_jpegs(3):
        hook.tag(content)
        atag(hook, content)
        atag_inside(hook, content)
    assert emulator.stats.requests == 9
    assert emulator.stats.signatures_seen == 1


def test_calls_share_a_connection_inside_async_with(emulator, small_jpegs):
    """Two successive calls use one connection; outside, each opens its own."""
    contents = small_jpegs(2)

    async def inside() -> int:
        hook = ImageTagHook()
        async with hook:
            connections = hook._open_labeller._connections  # type: ignore[union-attr]
            assert isinstance(connections, nonblocking.Connections)
            for content in contents:
                await hook.atag(content)
            pools = connections._session.connector._conns.values()  # type: ignore[union-attr]
            kept = sum(len(pool) for pool in pools)
        assert hook._open_labeller is None
        assert connections._session.closed
        return kept

    assert asyncio.run(inside()) == 1


def test_concurrent_calls(emulator, small_jpegs):
    """Each of many concurrent calls, inside and outside, gets the labels of its image."""
    contents = small_jpegs(20)
    emulator.faults = Faults(latency_seconds=0.05)

    async def main() -> tuple[list[TagResult], list[TagResult]]:
        hook = ImageTagHook()
        outside = await asyncio.gather(*(hook.atag(content) for content in contents))
        async with hook:
            inside = await asyncio.gather(*(hook.atag(content) for content in contents))
        return outside, inside

    outside, inside = asyncio.run(main())
    assert [result.labels for result in outside] == [result.labels for result in inside]
    assert [result.image_key for result in outside] == [result.image_key for result in inside]
    assert emulator.stats.max_in_flight > 5


def test_a_hook_may_be_used_in_one_loop_after_another(emulator, photograph):
    """The hook keeps nothing of a closed loop."""
    hook = ImageTagHook()
    for _ in range(2):
        assert atag_inside(hook, photograph).labels
        assert atag(hook, photograph).labels


# Secrets


def secrets_of(hook: ImageTagHook, emulator: Emulator) -> list[str]:
    """Return the key, the signature and the presigned query."""
    signature = hook.codec.probe().headers["Authorization"]
    password = emulator.connection.password
    assert password is not None
    return [password, signature, "5ecre7"]


@pytest.mark.parametrize(
    "faults",
    [None, Faults(error_rates={403: 1}), Faults(drop_rate=1), Faults(garbage_rate=1)],
    ids=["good", "refused", "dropped", "garbage"],
)
def test_no_secret_is_shown(way, faults, photograph, image_url, caplog, monkeypatch):
    """No log record, error or repr has the key, the signature or a presigned query."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    with Emulator(secret_key=KEY, faults=faults) as emulator:
        monkeypatch.setenv(VARIABLE, emulator.connection_json)
        hook = ImageTagHook()
        shown = []
        with caplog.at_level(logging.DEBUG):
            for image in (photograph, image_url):
                try:
                    shown.append(repr(way(hook, image)))
                except ImageTagError as error:
                    shown.append(f"{error!r} {error} {vars(error)}")
                    unseen = error.__suppress_context__ or error.__context__ is None
                    shown += [] if unseen else [repr(error.__context__)]
            shown.append(str(hook.test_connection()))
        shown += [repr(hook), repr(hook.account), repr(hook.codec), repr(vars(hook.codec))]
        shown += [repr(hook.codec.request(hook._own_loader().load(Image("k", image_url))))]
        shown += [record.getMessage() for record in caplog.records]
        shown += [repr(record.args) for record in caplog.records]
        for secret in secrets_of(hook, emulator):
            assert not [text for text in shown if secret in text]


@pytest.mark.parametrize("url", ["http://localhost:1/", "http://10.0.0.1/", "http://a.internal/"])
def test_a_service_of_the_internet_is_given_no_private_url(emulator, way, url, monkeypatch):
    """The service could not download it; nothing is sent, and no host is looked up."""
    connect(monkeypatch, emulator, host="labels.example.invalid")
    with pytest.raises(errors.ImageNotAllowedError, match="private network"):
        way(ImageTagHook(), url)
