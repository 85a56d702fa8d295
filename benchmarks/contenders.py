"""The compared ways to label images. Each run of one is a process of its own.

``python contenders.py JOB`` imports the libraries of the contender, prints a line, waits for a line
of input and then labels the images; so imports are not measured, and several processes can start
together. The result is printed as JSON. Without a quota, one image is labelled first as a warm-up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import importlib
import json
import os
import random
import resource
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from memory import peak_mb

ImagePipeline = Callable[[], int]
"""Labels all images of a job and returns the number of labelled images."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The task of a contender.

    :param contender: name of the contender.
    :param connection: Airflow connection to the service.
    :param images: number of images, all different.
    :param first: number of the first image, so that several processes get different ones.
    :param image_bytes: size of each image.
    :param requests_per_second: the quota; 0 for none.
    :param at_once: maximum number of requests in flight, or of threads.
    :param store: URI of a folder for the labels; None returns them.
    """

    contender: str
    connection: Mapping[str, Any]
    images: int
    image_bytes: int
    first: int = 0
    requests_per_second: float = 0
    at_once: int = 64
    store: str | None = None

    @property
    def numbers(self) -> range:
        """Numbers of the images."""
        return range(self.first, self.first + self.images)

    @property
    def url(self) -> str:
        """Scheme, host and port of the service."""
        return "{schema}://{host}:{port}".format_map(self.connection)


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of a contender.

    :param labelled: number of labelled images.
    :param seconds: duration.
    :param cpu_seconds: CPU time of the process in that time.
    :param peak_mb: peak memory of the process.
    :param above_start_mb: peak memory above that after the imports.
    """

    labelled: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    above_start_mb: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to label images.

    :param prepare: imports and sets up everything, and returns the function that labels.
    :param api: API that the contender calls.
    """

    prepare: Callable[[Job], ImagePipeline]
    api: str = "picture_classify"


# -- images -----------------------------------------------------------------------------------


def picture(number: int, size_bytes: int) -> bytes:
    """Return a PNG of this size; its bytes differ for each number."""
    start = _padded(size_bytes - 8)
    return start + number.to_bytes(8, "big")


@cache
def _padded(size_bytes: int) -> bytes:
    # Decoders ignore bytes after the last chunk of a PNG.
    lines = b"".join(b"\0" + bytes((row * 4, 90, 160)) * 64 for row in range(64))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(lines)),
            _chunk(b"IEND", b""),
        )
    )
    return png + random.Random(0).randbytes(size_bytes - len(png))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# -- ours -------------------------------------------------------------------------------------


def ours(job: Job, *, sign_payload: bool = True) -> ImagePipeline:
    """Prepare one ``ImageTagOperator`` over a source that generates its images on demand.

    :param sign_payload: sign the bodies of ``DetectLabelPro``.
    """
    extra = {**job.connection["extra"], "api": CONTENDERS[job.contender].api}
    if not sign_payload:
        extra["sign_payload"] = False
    extra["requests_per_second"] = job.requests_per_second
    if not job.requests_per_second:
        extra["max_in_flight"] = job.at_once
    os.environ["AIRFLOW_CONN_IMAGETAG_DEFAULT"] = json.dumps({**job.connection, "extra": extra})
    # A task has loaded these modules before its first image.
    for name in (
        "aiohttp",
        "pandas",
        "airflow_imagetag.operators.run",
        "airflow_imagetag.stores.parquet_open",
    ):
        importlib.import_module(name)
    from airflow.providers.common.compat.sdk import BaseHook

    from airflow_imagetag.models import Image
    from airflow_imagetag.operators.imagetag import ImageTagOperator
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores import ParquetLabelStore

    if "quota_conn_id" in extra:
        # The search for the provider of the hook takes seconds.
        BaseHook.get_connection(extra["quota_conn_id"]).get_hook()

    class Pictures(ImageSource):
        template_fields = ()
        is_in_memory = True

        def entries(self, **_: Any) -> Iterator[Image]:
            for number in job.numbers:
                yield Image(str(number), content=picture(number, job.image_bytes))

    class TaskInstance:
        """Keep XComs as Airflow does."""

        def __init__(self) -> None:
            self.xcoms: dict[str, Any] = {}

        def xcom_push(self, key: str, value: Any) -> None:
            self.xcoms[key] = value

    store = ParquetLabelStore(job.store) if job.store else None
    operator = ImageTagOperator(task_id="label", images=Pictures(), store=store)

    def label() -> int:
        task_instance = TaskInstance()
        operator.execute({"ti": task_instance})
        return int(task_instance.xcoms["summary"]["tagged"])

    return label


# -- alternatives of a user ---------------------------------------------------------------------


def bare(job: Job, *, is_uvloop: bool = False) -> ImagePipeline:
    """Prepare a loop of aiohttp that sends three byte strings, without digests, retries or keys.

    With a quota it starts a request at each tick of the clock, without a margin.

    :param is_uvloop: use uvloop in place of asyncio's event loop.
    """
    import aiohttp
    import uvloop

    head, tail, headers = _form(job)

    async def main() -> int:
        connector = aiohttp.TCPConnector(limit=job.at_once if not job.requests_per_second else 0)
        async with aiohttp.ClientSession(job.url, connector=connector, headers=headers) as session:

            async def send(number: int) -> bool:
                body = b"".join((head, picture(number, job.image_bytes), tail))
                async with session.post("/imagetag/picture_classify", data=body) as response:
                    return response.ok and json.loads(await response.read())["code"] == 0

            if job.requests_per_second:
                return await _at_each_tick(job, send)
            numbers = iter(job.numbers)

            async def work() -> int:
                return sum([await send(number) for number in numbers])

            return sum(await asyncio.gather(*(work() for _ in range(job.at_once))))

    def label() -> int:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if is_uvloop else None) as runner:
            return runner.run(main())

    return label


def bare_json(job: Job) -> ImagePipeline:
    """Prepare a loop of aiohttp that sends the JSON of ``DetectLabelPro``, without a signature."""
    import aiohttp
    import pybase64

    headers = {"Content-Type": "application/json", "X-TC-Action": "DetectLabelPro"}
    head, tail = b'{"ImageBase64": "', b'"}'

    async def main() -> int:
        connector = aiohttp.TCPConnector(limit=job.at_once if not job.requests_per_second else 0)
        async with aiohttp.ClientSession(job.url, connector=connector, headers=headers) as session:

            async def send(number: int) -> bool:
                image = pybase64.b64encode(picture(number, job.image_bytes))
                body = b"".join((head, image, tail))
                async with session.post("/", data=body) as response:
                    return response.ok and "Labels" in json.loads(await response.read())["Response"]

            if job.requests_per_second:
                return await _at_each_tick(job, send)
            numbers = iter(job.numbers)

            async def work() -> int:
                return sum([await send(number) for number in numbers])

            return sum(await asyncio.gather(*(work() for _ in range(job.at_once))))

    return lambda: asyncio.run(main())


async def _at_each_tick(job: Job, send: Callable[[int], Any]) -> int:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    sent = []
    for tick, number in enumerate(job.numbers):
        await asyncio.sleep(begin + tick / job.requests_per_second - loop.time())
        sent.append(asyncio.create_task(send(number)))
    return sum(await asyncio.gather(*sent))


def threads(job: Job) -> ImagePipeline:
    """Prepare ``requests`` in a thread pool: a session for each thread, urllib3's retries."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    thread_local = threading.local()
    authorization = _authorization(job)
    retries = Retry(
        10, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None
    )

    def session() -> requests.Session:
        if not hasattr(thread_local, "session"):
            thread_local.session = requests.Session()
            thread_local.session.headers["Authorization"] = authorization
            thread_local.session.mount("http://", HTTPAdapter(max_retries=retries))
        current: requests.Session = thread_local.session
        return current

    def label(number: int) -> bool:
        with contextlib.suppress(requests.RequestException):
            response = session().post(
                f"{job.url}/imagetag/picture_classify",
                data={"app_id": job.connection["extra"]["app_id"]},
                files={"image": picture(number, job.image_bytes)},
                timeout=30,
            )
            return bool(response.json()["code"] == 0)
        return False

    return lambda: _in_threads(job, label)


def sdk(job: Job) -> ImagePipeline:
    """Prepare the vendor's SDK, ``tencentcloud-sdk-python-tiia``, in a thread pool.

    With a quota it uses the vendor's own retries, which call again even after a success, and then
    raise the first error.
    """
    from tencentcloud.common.credential import Credential
    from tencentcloud.common.exception import TencentCloudSDKException
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.common.retry import NoopRetryer, StandardRetryer
    from tencentcloud.tiia.v20190529 import models, tiia_client

    thread_local = threading.local()
    credential = Credential(job.connection["login"], job.connection["password"])
    address = job.url.partition("://")[2]

    def client() -> tiia_client.TiiaClient:
        if not hasattr(thread_local, "client"):
            http = HttpProfile(protocol="http", endpoint=address, keepAlive=True)
            retryer = StandardRetryer() if job.requests_per_second else NoopRetryer()
            profile = ClientProfile(httpProfile=http, retryer=retryer)
            thread_local.client = tiia_client.TiiaClient(credential, "ap-guangzhou", profile)
        return thread_local.client

    def label(number: int) -> bool:
        request = models.DetectLabelProRequest()
        request.ImageBase64 = base64.b64encode(picture(number, job.image_bytes)).decode()
        with contextlib.suppress(TencentCloudSDKException):
            return bool(client().DetectLabelPro(request).Labels)
        return False

    return lambda: _in_threads(job, label)


def _in_threads(job: Job, label: Callable[[int], bool]) -> int:
    with ThreadPoolExecutor(job.at_once) as pool:
        return sum(pool.map(label, job.numbers))


def _form(job: Job) -> tuple[bytes, bytes, dict[str, str]]:
    """Return the bytes before and after an image, and the headers."""
    app_id = job.connection["extra"]["app_id"]
    disposition = "Content-Disposition: form-data; name="
    head = (
        f'--b\r\n{disposition}"app_id"\r\n\r\n{app_id}\r\n'
        f'--b\r\n{disposition}"image"; filename="image"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    headers = {
        "Authorization": _authorization(job),
        "Content-Type": "multipart/form-data; boundary=b",
    }
    return head.encode(), b"\r\n--b--\r\n", headers


def _authorization(job: Job) -> str:
    from airflow_imagetag.services.recognition.signature import sign

    now = int(time.time())
    account = job.connection
    return sign(
        account["extra"]["app_id"],
        account["login"],
        account["password"],
        now=now,
        expires=now + 3600,
        nonce=1,
    )


CONTENDERS = {
    "ours": Contender(ours),
    "ours, DetectLabelPro": Contender(ours, api="DetectLabelPro"),
    "ours, DetectLabelPro, unsigned": Contender(
        partial(ours, sign_payload=False), api="DetectLabelPro"
    ),
    "bare aiohttp": Contender(bare),
    "bare aiohttp, JSON": Contender(bare_json, api="DetectLabelPro"),
    "bare aiohttp, uvloop": Contender(partial(bare, is_uvloop=True)),
    "requests, threads": Contender(threads),
    "vendor's SDK, threads": Contender(sdk, api="DetectLabelPro"),
}


# -- a run ------------------------------------------------------------------------------------


def main() -> int:
    """Run the job of the command line, print the result and return the exit code."""
    job = Job(**json.loads(sys.argv[1]))
    prepare = CONTENDERS[job.contender].prepare
    if not job.requests_per_second:
        # A warm-up loads the modules of the first image. With a quota, it would take a slot.
        prepare(dataclasses.replace(job, images=1, first=job.first + job.images))()
    label = prepare(job)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(dataclasses.asdict(measured(label))))
    return 0


def measured(label: ImagePipeline) -> Result:
    """Label the images and return the figures."""
    before, start_mb = resource.getrusage(resource.RUSAGE_SELF), peak_mb()
    started = time.monotonic()
    labelled = label()
    seconds = time.monotonic() - started
    after, end_mb = resource.getrusage(resource.RUSAGE_SELF), peak_mb()
    return Result(
        labelled=labelled,
        seconds=seconds,
        cpu_seconds=_cpu_seconds(after) - _cpu_seconds(before),
        peak_mb=end_mb,
        above_start_mb=end_mb - start_mb,
    )


def _cpu_seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
