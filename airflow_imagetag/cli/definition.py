"""Private: the commands as Airflow's own command line takes them, from Airflow 3.2 on."""

from __future__ import annotations

import argparse
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
    import os

    from airflow_imagetag.cli.main import run

    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    raise SystemExit(run(command, arguments))
