"""``otel-goprobe``: arguments -> a subcommand of commands/; every error caught once here and turned into an exit code.

Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 nothing to instrument, 70 a bug of ours, 130 interrupted, 141 the reader
of stdout has gone; ``run -- CMD`` ends with the command's own. Subcommands are imported when they are needed: neither
``--help`` nor an error in the arguments waits for numpy or OpenTelemetry.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

import click

from otel_goprobe import __version__, config, log, tools
from otel_goprobe.errors import GoprobeError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141

_COMMANDS: Final = ("run", "list", "inspect", "doctor")


class _Commands(click.Group):
    """Subcommands by the name of their module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*_COMMANDS, *tools.stems()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name in tools.stems():
            from otel_goprobe.commands.tool import command_of  # noqa: PLC0415 - only for tools

            return command_of(tools.tool(cmd_name))
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"otel_goprobe.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them, tools without importing what only their runs need."""
        commands = [self.get_command(ctx, name) for name in _COMMANDS]
        rows = [(str(command.name), command.get_short_help_str(200)) for command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        with formatter.section("Tools"):
            formatter.write_dl([(stem, tools.summary(stem)) for stem in tools.stems()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="%(prog)s %(version)s")
def program() -> None:
    """OpenTelemetry traces from Go programs nobody has to change, rebuild or restart.

    \b
    Begin with
      sudo otel-goprobe doctor                         is this machine fit, is the collector there?
      sudo otel-goprobe list                           which Go processes are there?
      sudo otel-goprobe run --service shop --pid 1234  trace one
    """  # noqa: D301 - \b is click's mark for a block that keeps its lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; `arguments` are those of the process by default."""
    log.set_up(config.environment_log_level())
    try:
        code = _invoke(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except click.ClickException as error:
        return _explain(error)
    except GoprobeError as error:
        _complain(error.message, error.remedy)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What is still buffered would fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the boundary: no traceback reaches a user unasked
        if log.LOGGER.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        remedy = "please report it with the output of the same command and OTEL_LOG_LEVEL=debug"
        _complain(f"{what} (this is a bug in otel-goprobe)", remedy)
        return EXIT_BUG
    return code


def _invoke(arguments: list[str]) -> int:
    """Run the subcommand; not by program.main(), which turns a broken pipe into exit code 1."""
    try:
        with program.make_context("otel-goprobe", arguments) as context:
            return int(program.invoke(context))
    except click.exceptions.Exit as done:
        return done.exit_code


def _explain(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    else:
        context = error.ctx if isinstance(error, click.UsageError) else None
        remedy = f"see {context.command_path if context else 'otel-goprobe'} --help"
        _complain(error.format_message().rstrip("."), remedy)
    return error.exit_code


def _complain(message: str, remedy: str) -> None:
    click.echo(f"error: {log.indented(message)}" + f"\n  {log.indented(remedy)}" * bool(remedy), err=True)
