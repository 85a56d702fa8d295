"""Private: the emulator: a local stand-in for the label service, for tests."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_imagetag.testing._api import API_NAMES, TIIA_NAMES, EmulatorAccount
from airflow_imagetag.testing._cos import Bucket
from airflow_imagetag.testing._fault_injector import FaultInjector
from airflow_imagetag.testing._recorder import Recorder
from airflow_imagetag.testing.faults import Faults

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from airflow_imagetag.adapters.airflow_sdk import Connection
    from airflow_imagetag.testing._api import ApiName
    from airflow_imagetag.testing._labels import CachedRecognizer
    from airflow_imagetag.testing.stats import Stats

__all__ = ["Emulator"]

CONNECTION_ID: Final = "imagetag_default"
CONNECTION_VARIABLE: Final = "AIRFLOW_CONN_IMAGETAG_DEFAULT"
"""Environment variable of the connection ``imagetag_default``."""

REGION: Final = "ap-guangzhou"
"""Region in connections for TIIA; the emulator serves every region."""

_WILDCARD_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)


class Emulator:
    """A real HTTP server that speaks the protocols of the label service.

    It runs in a thread of its own from :meth:`start` to :meth:`stop`, or for a ``with`` block.
    It can be started again; counts and faults stay.

    :param app_id: AppID of the account that requests must be signed with.
    :param secret_id: SecretId of that account.
    :param secret_key: SecretKey of that account.
    :param bucket: bucket that signatures of V1 and V2 must name; empty accepts any.
    :param token: token of temporary keys, which requests of TIIA and COS must present; empty for
        permanent keys.
    :param host: address to listen on.
    :param port: port to listen on; 0 takes a free one.
    :param ssl_context: context for https; None serves http.
    :param faults: errors and delays of the service; None for none.
    :param clock: wall clock in Unix seconds, for the check of signatures.
    :param seed: seed of the random faults.
    :param fetch_timeout_seconds: maximum time to download an image by its URL.
    :param answer_form: form of a V2 answer: as in the ``"example"`` or as in the ``"table"`` of the
        vendor's document, which differ.
    :param labels: what labels images: ``"pixels"`` measures colour, light and shape, and needs
        nothing; ``"model"`` recognizes what a photograph shows, with the model of the extra
        ``local``.
    :param language: language of the labels of pixels: ``"en"`` or ``"zh"``, as the vendor's service
        answers.
    """

    def __init__(
        self,
        *,
        app_id: str = "1250000001",
        secret_id: str = "AKIDemulator0000000000000000000000",  # noqa: S107 (opens nothing real)
        secret_key: str = "emulatorSecretKey000000000000000",  # noqa: S107 (opens nothing real)
        bucket: str = "",
        token: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        faults: Faults | None = None,
        clock: Callable[[], float] = time.time,
        seed: int = 0,
        fetch_timeout_seconds: float = 3.0,
        answer_form: Literal["example", "table"] = "example",
        labels: Literal["pixels", "model"] = "pixels",
        language: Literal["en", "zh"] = "en",
    ) -> None:
        if fetch_timeout_seconds <= 0:
            raise ValueError("fetch_timeout_seconds must be more than 0")
        if answer_form not in ("example", "table"):
            raise ValueError('answer_form must be "example" or "table"')
        if labels not in ("pixels", "model"):
            raise ValueError('labels must be "pixels" or "model"')
        if language not in ("en", "zh"):
            raise ValueError('language must be "en" or "zh"')
        if language == "zh" and labels == "model":
            raise ValueError('language="zh" is for labels="pixels" only')
        self._account = EmulatorAccount(app_id, secret_id, secret_key, bucket, token)
        self._listen_host = host
        self._listen_port = port
        self._ssl_context = ssl_context
        self._clock = clock
        self._seed = seed
        self._fetch_timeout_seconds = fetch_timeout_seconds
        self._answer_form: Literal["example", "table"] = answer_form
        self._labels: Literal["pixels", "model"] = labels
        self._language: Literal["en", "zh"] = language
        self._fault_injector = FaultInjector(faults or Faults(), seed)
        self._recorder = Recorder()
        self._bucket = Bucket()
        self._port: int | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None

    def __repr__(self) -> str:
        """Show the address, not the account."""
        address = "not started" if self._port is None else self.url
        return f"<{type(self).__name__} {address}{'' if self._thread else ' (not running)'}>"

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def start(self) -> Self:
        """Start the server and return this emulator once it answers.

        :raises RuntimeError: the emulator is running.
        :raises OSError: the address cannot be listened on.
        :raises ModuleNotFoundError: the extra ``emulator``, or ``local``, is not installed.
        """
        if self._thread is not None:
            raise RuntimeError("the emulator is already running: stop it before the next start")
        # A module-level import would need aiohttp and Pillow.
        try:
            from airflow_imagetag.testing._server import serve
        except ModuleNotFoundError as error:
            raise _without_extra(error) from error
        recognizer = _recognizer(self._labels, self._language)
        ready: Future[tuple[int, Callable[[], object]]] = Future()
        thread = threading.Thread(
            target=lambda: asyncio.run(self._run(serve, recognizer, ready)),
            name="imagetag-emulator",
            daemon=True,
        )
        thread.start()
        try:
            self._port, self._stop = ready.result()
        except Exception:
            thread.join()
            raise
        self._thread = thread
        return self

    async def _run(
        self,
        serve: Callable[..., Any],
        recognizer: CachedRecognizer,
        ready: Future[tuple[int, Callable[[], object]]],
    ) -> None:
        """Serve until a stop; ``ready`` receives the port and a function that stops the server."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        try:
            async with serve(
                account=self._account,
                bucket=self._bucket,
                fault_injector=lambda: self._fault_injector,
                recorder=self._recorder,
                clock=self._clock,
                answer_form=self._answer_form,
                recognizer=recognizer,
                fetch_timeout_seconds=self._fetch_timeout_seconds,
                host=self._listen_host,
                port=self._listen_port,
                ssl_context=self._ssl_context,
            ) as port:
                ready.set_result((port, lambda: loop.call_soon_threadsafe(stopped.set)))
                await stopped.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def stop(self) -> None:
        """Stop the server and close the connections of requests in progress.

        Does nothing if the server is not running.
        """
        if self._thread is None or self._stop is None:
            return
        self._stop()
        self._thread.join()
        self._thread = self._stop = None

    @property
    def port(self) -> int:
        """Port of the server; after a stop, its last port.

        :raises RuntimeError: the emulator has not been started.
        """
        if self._port is None:
            raise RuntimeError("the emulator has not been started: call start() first")
        return self._port

    @property
    def url(self) -> str:
        """Scheme, host and port, without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self.port}"

    @property
    def connection_json(self) -> str:
        """Airflow connection as JSON, for ``AIRFLOW_CONN_IMAGETAG_DEFAULT``."""
        return self.connection_json_for("picture_classify")

    @property
    def connection(self) -> Connection:
        """Airflow connection ``imagetag_default`` to this server."""
        return self.connection_for("picture_classify")

    def connection_json_for(self, api: ApiName) -> str:
        """Return the connection for an API as JSON.

        :param api: ``"picture_classify"``, ``"imagetag_detect"``, ``"DetectLabelPro"``,
            ``"DetectLabel"`` or ``"ci_detect_label"``.
        :raises ValueError: the API is unknown.
        """
        return json.dumps({"conn_type": "imagetag", **self._connection_fields(api)})

    def connection_for(self, api: ApiName) -> Connection:
        """Return the connection ``imagetag_default`` for an API.

        :param api: as for :meth:`connection_json_for`.
        :raises ValueError: the API is unknown.
        """
        from airflow_imagetag.adapters.airflow_sdk import Connection

        fields = self._connection_fields(api)
        fields["extra"] = json.dumps(fields["extra"])
        return Connection(conn_id=CONNECTION_ID, conn_type="imagetag", **fields)

    def _connection_fields(self, api: ApiName) -> dict[str, Any]:
        return {
            "host": self._host,
            "port": self.port,
            "schema": self._scheme,
            "login": self._account.secret_id,
            "password": self._account.secret_key,
            "extra": _connection_extra(self._account, api),
        }

    @property
    def _host(self) -> str:
        """Address that clients on this machine connect to."""
        return _WILDCARD_HOSTS.get(self._listen_host, self._listen_host)

    @property
    def _scheme(self) -> str:
        return "http" if self._ssl_context is None else "https"

    def put_object(self, key: str, content: bytes) -> None:
        """Keep an object in the bucket that ``ci_detect_label`` labels, whatever its name is.

        :param key: name of the object, such as ``2026/a.jpg``.
        :param content: the bytes.
        """
        self._bucket.put(key, content)

    @property
    def stats(self) -> Stats:
        """Snapshot of the counts."""
        return self._recorder.snapshot()

    def reset_stats(self) -> None:
        """Set every count to zero."""
        self._recorder.reset()

    @property
    def faults(self) -> Faults:
        """Errors and delays of the service; can be assigned at any time, from any thread.

        An assignment holds from the next request. It restarts chance at the seed, the quota, and
        the record of attempted images.
        """
        return self._fault_injector.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        # A single assignment replaces faults and chance, so that no request sees a mixture.
        self._fault_injector = FaultInjector(faults, self._seed)


def _connection_extra(account: EmulatorAccount, api: ApiName) -> dict[str, str]:
    """Return the fields of a connection beside address and keys, without the empty ones."""
    if api not in API_NAMES:
        raise ValueError(f"api must be one of {', '.join(API_NAMES)}, not {api!r}")
    if api in TIIA_NAMES:
        extra = {"api": api, "region": REGION, "token": account.token}
    elif api == "ci_detect_label":
        name = account.bucket.removesuffix(f"-{account.app_id}") or "emulator"
        bucket = f"{name}-{account.app_id}"
        extra = {"api": api, "region": REGION, "bucket": bucket, "token": account.token}
    else:
        # A connection that names no API uses V2.
        extra = {"app_id": account.app_id, "bucket": account.bucket, "api": api}
    return {name: value for name, value in extra.items() if value}


def _recognizer(labels: Literal["pixels", "model"], language: str) -> CachedRecognizer:
    """Return the recognizer of an emulator."""
    if labels == "model":
        from airflow_imagetag.testing._model import model_recognizer

        return model_recognizer()
    from airflow_imagetag.testing._labels import CachedRecognizer

    return CachedRecognizer(language=language)


def _without_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return an error for a missing module that tells the extra to install."""
    return ModuleNotFoundError(
        f"the emulator needs {error.name}: pip install 'airflow-provider-imagetag[emulator]'",
        name=error.name,
    )
