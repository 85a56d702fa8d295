"""Private: ``airflow-imagetag doctor``: checks that say what to do; no call is billed."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

from airflow_imagetag import __version__
from airflow_imagetag.cli.installing import this_environment
from airflow_imagetag.cli.metadata import message_of
from airflow_imagetag.cli.places import read_once, store_of
from airflow_imagetag.cli.screen import show, show_json
from airflow_imagetag.errors import ConfigurationError, ImageTagError

EXTRAS = {
    "s3": ("s3fs", "images and labels in S3"),
    "redis": ("redis", "a quota that workers share through Redis"),
    "roles": ("tencentcloud", "keys of roles"),
    "downscale": ("PIL", "images that are too large made smaller"),
    "local": ("onnxruntime", "labels of a local model"),
    "delta": ("deltalake", "labels in Delta tables"),
}
"""A module of each extra, and what the extra is for."""


PAGES_SINCE = (3, 1)
"""First version of Airflow that shows the pages."""


class Check(NamedTuple):
    """The result of one check.

    :param check: names the check.
    :param result: ``ok``, ``note`` (works, but may surprise) or ``FAILED``.
    :param found: the result, and the remedy.
    """

    check: str
    result: str
    found: str


OK, NOTE, FAILED = "ok", "note", "FAILED"


def doctor(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Check everything that a run needs, and print the remedies; 1 if a check failed."""
    checks = [*_all_checks(arguments)]
    if arguments.json:
        show_json([check._asdict() for check in checks], out)
    else:
        show([check._asdict() for check in checks], out)
    return int(any(check.result == FAILED for check in checks))


def _all_checks(arguments: argparse.Namespace) -> Iterator[Check]:
    yield from _packages()
    yield from _guarded("Airflow knows the provider", _provider)
    yield from _guarded("extras", _extras)
    yield from _guarded("connection", lambda: _connection(arguments.connection))
    yield from _guarded("configuration", _configuration)
    for text in arguments.stores:
        yield from _guarded(f"store {text}", partial(_store, text))


def _guarded(name: str, work: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Yield the results of some checks; an error of ours is the result of the last one."""
    try:
        yield from work()
    except ImageTagError as error:
        yield Check(name, FAILED, message_of(error))


def _packages() -> Iterator[Check]:
    names = ("apache-airflow", "apache-airflow-providers-common-compat", "pandas", "pyarrow")
    yield Check("Python", OK, platform.python_version())
    yield Check("airflow-provider-imagetag", OK, __version__)
    for name in names:
        try:
            yield Check(name, OK, version(name))
        except PackageNotFoundError:
            yield Check(name, FAILED, f"Not installed: pip install {name}")
    yield from _guarded("frames in XComs", _frames)


def _frames() -> Iterator[Check]:
    from airflow_imagetag.backends.airflow_versions import check_xcom_can_hold_frames

    check_xcom_can_hold_frames()
    yield Check("frames in XComs", OK, "This Airflow can keep a DataFrame of this pandas.")


def _provider() -> Iterator[Check]:
    from airflow_imagetag.adapters.airflow_sdk import airflow_version

    found = [point.value for point in entry_points(group="apache_airflow_provider")]
    ours = [value for value in found if value.startswith("airflow_imagetag.")]
    if not ours:
        raise ConfigurationError(
            "The package is on the path and not installed, so Airflow has no connection type "
            "imagetag. Install it with pip into the environment of Airflow."
        )
    yield Check("Airflow knows the provider", OK, ours[0])
    plugins = [point.value for point in entry_points(group="airflow.plugins")]
    pages = [value for value in plugins if value.startswith("airflow_imagetag.")]
    if pages and airflow_version() < PAGES_SINCE:
        instead = "Pages need Airflow 3.1 or newer; use airflow-imagetag report."
        yield Check("page in Airflow", NOTE, instead)
    elif pages:
        yield Check("page in Airflow", OK, pages[0])


def _extras() -> Iterator[Check]:
    environment = this_environment()
    for extra, (module, purpose) in EXTRAS.items():
        if find_spec(module) is not None:
            yield Check(f"extra {extra}", OK, purpose)
        else:
            install = environment.command(extra)
            yield Check(f"extra {extra}", NOTE, f"Not installed. For {purpose}: {install}")


def _connection(conn_id: str) -> Iterator[Check]:
    from airflow_imagetag.hooks.imagetag import ImageTagHook

    hook = ImageTagHook(conn_id)
    account = hook.account
    name = f"connection {conn_id}"
    place = f" at {account.endpoint}" if account.endpoint else ""
    yield Check(name, OK, f"{account.api}{place}")
    is_good, message = hook.test_connection()
    yield Check("key", OK if is_good else FAILED, f"{message} (no call was billed)")
    rate = account.requests_per_second
    yield Check("quota", OK, "no limit" if rate is None else f"{rate:g} requests per second")
    if account.price_per_thousand is None:
        fix = "Set price_per_thousand in the connection's extra to see costs."
        yield Check("price", NOTE, f"Unknown. {fix}")
    elif not account.price_per_thousand:
        yield Check("price", OK, "none: calls are free")
    else:
        yield Check("price", OK, f"{account.price_per_thousand:g} for a thousand calls")
    if account.quota_conn_id and rate is not None:
        yield from _guarded(
            f"quota server {account.quota_conn_id}", lambda: _quota_server(account, rate)
        )


def _quota_server(account: Any, rate: float) -> Iterator[Check]:
    from airflow_imagetag.backends.databases import engine_of

    conn_id = account.quota_conn_id
    from airflow_imagetag.adapters.airflow_sdk import BaseHook

    connection = BaseHook.get_connection(conn_id)
    if connection.conn_type == "redis":
        hook: Any = connection.get_hook()  # type: ignore[no-untyped-call]
        try:
            hook.get_conn().ping()
        # The client's errors are those of the extra redis.
        except Exception as error:
            raise ConfigurationError(
                f"No answer: {type(error).__name__}. Start the Redis, correct its connection, or "
                "set quota_fallback_share."
            ) from None
    else:
        engine = engine_of(conn_id)
        try:
            engine.connect().close()
        except ImageTagError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"No answer: {type(error).__name__}. Start the database, correct its connection, "
                "or set quota_fallback_share."
            ) from None
        finally:
            engine.dispose()
    yield Check(f"quota server {conn_id}", OK, f"answers; {rate:g} requests per second are shared")


def _configuration() -> Iterator[Check]:
    from airflow_imagetag.backends.configuration import (
        NO_CONNECTIONS,
        allowed_connections,
        allowed_local_folders,
        retry_schedule,
    )

    retry_schedule()
    folders = allowed_local_folders()
    for folder in folders:
        exists = Path(folder).is_dir()
        found = "exists" if exists else "No such folder on this machine: create or remove it."
        yield Check(f"allowed_local_paths {folder}", OK if exists else NOTE, found)
    if not folders:
        yield Check(
            "allowed_local_paths",
            NOTE,
            "Not set: the pages and the report show no pictures of local files, and only paths "
            "that a DAG file or the command names are read. Set [imagetag] allowed_local_paths "
            "to the folders that data may name.",
        )
    allowed = allowed_connections()
    if allowed is None:
        yield Check(
            "allowed_connections",
            NOTE,
            "Not set: data may name any connection of a storage. Set [imagetag] "
            "allowed_connections to those that images need; if they need none, write "
            f"allowed_connections = {NO_CONNECTIONS}.",
        )
    else:
        named = ", ".join(sorted(allowed)) or "none: data may name no connection"
        yield Check("allowed_connections", OK, named)


def _store(text: str) -> Iterator[Check]:
    found = store_of(text)
    if read_once(found):
        yield Check(f"store {text}", OK, f"{found!r} can be read")
    else:
        yield Check(f"store {text}", NOTE, f"{found!r} is not created yet: the first run does it.")
