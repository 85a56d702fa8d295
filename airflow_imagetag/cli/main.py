"""Private: the entry point of the command ``airflow-imagetag``."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import IO

from airflow_imagetag import __version__
from airflow_imagetag.cli.commands import COMMANDS, Command
from airflow_imagetag.cli.metadata import message_of, quiet_look_ups

USAGE, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: wrong arguments or configuration; a run or a check that failed; Ctrl-C."""

_EMULATOR = "emulator"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    :param argv: the arguments after the command's name; None takes them from the command line.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == [_EMULATOR]:
        emulator = import_module("airflow_imagetag.testing.cli")
        code: int = emulator.main(given)
        return code
    arguments = parser().parse_args(given)
    # Otherwise Airflow looks connections up only in the environment, as a worker does.
    with _variables(
        _AIRFLOW_PROCESS_CONTEXT="server",
        AIRFLOW__LOGGING__LOGGING_LEVEL="INFO" if arguments.verbose else "ERROR",
    ):
        return run(arguments.command, arguments)


def run(command: Command, arguments: argparse.Namespace) -> int:
    """Run a command and return its exit code.

    What Airflow prints and logs goes to the standard error, so that the output can be piped.
    """
    from airflow_imagetag.errors import ConfigurationError, ImageTagError

    module, _, name = command.run.partition(":")
    # A process that was started without a standard output has none.
    out = sys.stdout or io.StringIO()
    try:
        look_ups = contextlib.nullcontext() if arguments.verbose else quiet_look_ups()
        with contextlib.redirect_stdout(sys.stderr), look_ups:
            code: int = getattr(import_module(module), name)(arguments, out)
            out.flush()
        return code
    except ImageTagError as error:
        print(f"airflow-imagetag: {message_of(error)}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigurationError) else FAILED
    except KeyboardInterrupt:
        print("airflow-imagetag: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has seen enough.
        _drop(out)
        return 0
    except OSError as error:
        # A file that the command line names, or a full disk.
        if error.filename is None:
            _drop(out)
        print(f"airflow-imagetag: {error}", file=sys.stderr)
        return FAILED


def _drop(out: IO[str]) -> None:
    """Let Python's last flush of an output, at its exit, go nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="airflow-imagetag",
        description="Label images, and look after the labels.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 130 interrupted.",
    )
    found.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = found.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help, description=command.help)
        for argument in command.arguments:
            one.add_argument(*argument.flags, **argument.settings)
        one.set_defaults(command=command)
    commands.add_parser(_EMULATOR, help="run a local stand-in for the label service until Ctrl-C")
    return found


@contextlib.contextmanager
def _variables(**values: str) -> Iterator[None]:
    """Set environment variables that are not set."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
