"""Private: the commands and their arguments; imports nothing that a command needs to run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLACE_HELP = (
    "CONN_ID:TABLE, imagetag://CONN_ID/SCHEMA/TABLE, or a folder such as s3://CONN_ID@lake/labels"
)


@dataclass(frozen=True)
class Argument:
    """One argument of a command, as ``argparse`` takes it.

    :param flags: its name, or its options.
    :param settings: keyword arguments of ``add_argument``.
    """

    flags: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _argument(*flags: str, **settings: Any) -> Argument:
    return Argument(flags, settings)


@dataclass(frozen=True)
class Command:
    """A command.

    :param name: its name.
    :param help: one line about it.
    :param run: path of the function that runs it: ``module:function``.
    :param arguments: its arguments.
    """

    name: str
    help: str
    run: str
    arguments: tuple[Argument, ...]


def _positive(text: str) -> int:
    """Return a number from 1 on."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {number}")
    return number


STORE = _argument("store", metavar="STORE", help=f"where the labels are: {PLACE_HELP}")
JSON = _argument("--json", action="store_true", help="print JSON in place of a table")
VERBOSE = _argument("--verbose", action="store_true", help="show the log on the standard error")
API = _argument("--api", help="only this interface, such as DetectLabelPro")
CONNECTION = _argument(
    "--connection",
    metavar="CONN_ID",
    default="imagetag_default",
    help="connection of the account (default: %(default)s)",
)
RATE = _argument(
    "--requests-per-second", type=float, help="pace (default: the quota of the connection)"
)
MAX_IMAGES = _argument("--max-images", type=int, help="label at most this number of images")

_SOURCE_COLUMNS = (
    _argument("--key", default="id", help="of a table: column of the keys (default: %(default)s)"),
    _argument(
        "--uri",
        default="image_url",
        help="of a table: column of the URLs or paths (default: %(default)s)",
    ),
    _argument("--version-column", help="of a table: column that changes when the image does"),
    _argument("--pattern", help="of a folder: only names that match, such as '*/front/*.jpg'"),
)

LABEL = Command(
    "label",
    "label a folder, bucket or table without a DAG",
    "airflow_imagetag.cli.labelling:label",
    (
        _argument(
            "source",
            metavar="SOURCE",
            help="where the images are: a folder, such as s3://CONN_ID@photos/, or CONN_ID:TABLE",
        ),
        _argument(
            "--to",
            metavar="PLACE",
            required=True,
            help=f"where the labels go: a file that ends in .csv, or a store: {PLACE_HELP}",
        ),
        *_SOURCE_COLUMNS,
        CONNECTION,
        _argument(
            "--local",
            action="store_true",
            help="label with the model on this machine, without a connection or an account",
        ),
        RATE,
        MAX_IMAGES,
        _argument("--min-probability", type=float, default=0.0, help="leave out labels below it"),
        _argument("--top-k", type=int, help="keep at most this number of labels of an image"),
        _argument("--label-map", metavar="FILE", help="other names for labels: a CSV or JSON file"),
        _argument(
            "--only-failed",
            action="store_true",
            help="of a store: only images that failed, wait or were given up",
        ),
        _argument(
            "--dry-run",
            action="store_true",
            help="send and write nothing; print what the run would do and cost",
        ),
        _argument("--sample", type=int, help="label only this number of images, chosen evenly"),
        _argument("--max-calls", type=int, help="make at most this number of calls"),
        JSON,
        VERBOSE,
    ),
)

PLAN = Command(
    "plan",
    "tell what the next run of a DAG's task would do and cost, without a call",
    "airflow_imagetag.cli.planning:plan",
    (
        _argument("dag_id", metavar="DAG_ID", help="id of the DAG"),
        _argument("task_id", metavar="TASK_ID", help="id of its ImageTagOperator"),
        _argument(
            "--dags", metavar="PATH", help="DAG file or folder (default: Airflow's dags_folder)"
        ),
        JSON,
        VERBOSE,
    ),
)

RUNS = Command(
    "runs",
    "list the runs of a store, or their calls and cost by day or month",
    "airflow_imagetag.cli.history:runs",
    (
        STORE,
        _argument("--by", choices=("day", "month"), help="print sums in place of single runs"),
        _argument(
            "--last", type=_positive, default=20, help="number of runs (default: %(default)s)"
        ),
        API,
        JSON,
        VERBOSE,
    ),
)

FAILURES = Command(
    "failures",
    "list the images without labels, and why they have none",
    "airflow_imagetag.cli.history:failures",
    (
        STORE,
        _argument("--why", action="store_true", help="print the numbers by cause"),
        _argument(
            "--last", type=_positive, default=100, help="number of images (default: %(default)s)"
        ),
        API,
        JSON,
        VERBOSE,
    ),
)

RETRY = Command(
    "retry",
    "label the images again that failed, wait or were given up",
    "airflow_imagetag.cli.history:retry",
    (
        STORE,
        _argument(
            "source",
            metavar="SOURCE",
            nargs="?",
            help="their source, as of label (default: the URIs that the store has)",
        ),
        *_SOURCE_COLUMNS,
        CONNECTION,
        RATE,
        MAX_IMAGES,
        JSON,
        VERBOSE,
    ),
)

REPORT = Command(
    "report",
    "write a page with labels, failures, cost and small pictures as one HTML file",
    "airflow_imagetag.cli.storing:report",
    (
        STORE,
        _argument("file", metavar="FILE", help="the page, such as report.html"),
        JSON,
        VERBOSE,
    ),
)

EVALUATE = Command(
    "evaluate",
    "measure the labels of a store against labels that people have given",
    "airflow_imagetag.cli.evaluating:evaluate",
    (
        STORE,
        _argument(
            "truth",
            metavar="TRUTH",
            help="the columns image_key and label: a .csv or .parquet file, or CONN_ID:TABLE",
        ),
        API,
        _argument("--other-api", help="compare with the labels of this interface"),
        _argument(
            "--threshold",
            type=float,
            action="append",
            help="a probability from 0 to 1; may be repeated (default: 0.5)",
        ),
        _argument("--precision", type=float, help="print the lowest thresholds that reach it"),
        _argument(
            "--write-label-map",
            metavar="FILE",
            help="with --precision: write the thresholds as a label map in CSV",
        ),
        _argument("--reviewed", action="store_true", help="leave out labels that TRUTH never has"),
        JSON,
        VERBOSE,
    ),
)

DOCTOR = Command(
    "doctor",
    "check the installation, a connection and stores, without a billed call",
    "airflow_imagetag.cli.doctor:doctor",
    (
        _argument(
            "connection",
            metavar="CONN_ID",
            nargs="?",
            default="imagetag_default",
            help="connection of the account (default: %(default)s)",
        ),
        _argument(
            "--store",
            dest="stores",
            metavar="STORE",
            action="append",
            default=[],
            help="check this store, too; may be repeated",
        ),
        JSON,
        VERBOSE,
    ),
)

COMPACT = Command(
    "compact",
    "rewrite a dataset of many small files as few large ones",
    "airflow_imagetag.cli.storing:compact",
    (STORE, JSON, VERBOSE),
)

DELETE = Command(
    "delete",
    "delete images with their labels from a store",
    "airflow_imagetag.cli.storing:delete",
    (
        STORE,
        _argument("keys", metavar="KEY", nargs="+", help="image_key of an image"),
        API,
        JSON,
        VERBOSE,
    ),
)

STORE_COMMAND = Command(
    "store",
    "check a store, or bring its tables to the form of this version",
    "airflow_imagetag.cli.storing:store",
    (
        _argument("action", choices=("check", "upgrade"), help="what to do"),
        STORE,
        JSON,
        VERBOSE,
    ),
)

COMMANDS: tuple[Command, ...] = (
    LABEL,
    PLAN,
    RUNS,
    FAILURES,
    RETRY,
    DELETE,
    COMPACT,
    STORE_COMMAND,
    REPORT,
    EVALUATE,
    DOCTOR,
)
"""All commands but ``emulator``, which needs nothing of Airflow."""
