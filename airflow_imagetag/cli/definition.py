"""Private: the commands as Airflow's own command line takes them, from Airflow 3.2 on."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any

from airflow_imagetag.cli.commands import COMMANDS, Argument, Command


def get_imagetag_cli_commands() -> list[Any]:
    """Return the group ``airflow imagetag``."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    subcommands = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=partial(_run, command),
            args=[_arg(argument) for argument in command.arguments],
        )
        for command in COMMANDS
    ]
    return [
        GroupCommand(
            name="imagetag", help="Label images, and look after the labels", subcommands=subcommands
        )
    ]


def _arg(argument: Argument) -> Any:
    from airflow.cli import cli_config

    kind: Any = cli_config.Arg
    return kind(argument.flags, **argument.settings)


def _run(command: Command, arguments: argparse.Namespace) -> None:
    from airflow_imagetag.cli.main import run

    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    if not arguments.verbose:
        logging.disable(logging.WARNING)
    with _log_on_standard_error():
        raise SystemExit(run(command, arguments))


@contextmanager
def _log_on_standard_error() -> Iterator[None]:
    """Leave the standard output to the results.

    Airflow has configured its log by now, and writes it to the file of the standard output.
    """
    sys.stdout.flush()
    number, encoding = sys.stdout.fileno(), sys.stdout.encoding
    with os.fdopen(os.dup(number), "w", encoding=encoding) as out:
        os.dup2(sys.stderr.fileno(), number)
        with redirect_stdout(out):
            yield
