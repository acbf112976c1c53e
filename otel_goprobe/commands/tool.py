"""``otel-goprobe TOOL``: a tool's declaration -> its command; made by cli.py for every tool of the registry."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import click

from otel_goprobe import config, log, tools
from otel_goprobe.commands.run import Launching, command_behind
from otel_goprobe.commands.run import command as run_command
from otel_goprobe.environment import parse_duration
from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from otel_goprobe.tools.base import Tool

ONCE_S = 1.0
"""What --once looks at."""
_EXAMPLES = """\
sudo otel-goprobe {0} --pid 1234 --once --where 'main.(*Cart).*'
sudo otel-goprobe {0} --json --for 30s -- ./shop --listen :8080"""
"""Of every tool."""


def _duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def selection_options() -> list[click.Parameter]:
    """Return the parameters by which `run` selects processes, or starts one."""
    wanted = {"stray", "services", "pids", "exes", "ports", "every", "no_wait", "sdk", "user", "log_level"}
    return [each for each in run_command.params if each.name in wanted]


def command_of(tool: Tool) -> click.Command:
    """Return the command of a tool."""
    own = [option.name for option in tool.every_option if option.name]
    columns = [column.key for column in tool.columns]

    @click.pass_context
    def callback(ctx: click.Context, /, **options: Any) -> int:
        return _run(tool, {name: options.pop(name) for name in own}, {**options, "command": command_behind(ctx)})

    examples = "\n".join(
        f"  {line}" for line in [*tool.examples.splitlines(), *_EXAMPLES.format(tool.stem).splitlines()]
    )
    return Launching(
        tool.stem,
        options_metavar="[OPTIONS] [-- COMMAND ARGS...]",
        callback=callback,
        help=f"{tools.summary(tool.stem)}\n\n\b\nExamples\n{examples}\n",
        params=[
            *selection_options(),
            click.Option(["--once"], is_flag=True, help=f"Look for {ONCE_S:g} s, print, end."),
            click.Option(
                ["--for", "seconds"], metavar="TIME", callback=_duration, help="Look so long, print, end: 30s."
            ),
            click.Option(
                ["--json", "json_rows"], is_flag=True, help="Print one JSON object a row and line, at the end."
            ),
            click.Option(["--sort"], type=click.Choice(columns), help=f"Column to sort by [default: {tool.sort}]."),
            click.Option(
                ["--limit"], type=click.IntRange(1), metavar="N", default=40, show_default=True, help="Rows to show."
            ),
            click.Option(
                ["--emit"], type=click.Choice(["bpftrace"]), help="Print an equivalent script for bpftrace instead."
            ),
            *tool.every_option,
        ],
    )


def _run(tool: Tool, own: dict[str, object], options: dict[str, Any]) -> int:
    emit, once, seconds = options.pop("emit"), options.pop("once"), options.pop("seconds")
    if emit:
        if tool.bpftrace is None:
            raise UsageError(f"{tool.stem} can't be said in bpftrace's language")
        click.echo(tool.bpftrace(options["pids"]), nl=False)
        return 0
    live = config.Live(
        tool.stem,
        seconds=ONCE_S if once and seconds is None else seconds,
        json_rows=options.pop("json_rows"),
        sort=options.pop("sort") or "",
        limit=options.pop("limit"),
    )
    flags = config.Flags(
        wait=not options.pop("no_wait"), exporter="none", tools=(tool.stem,), tool_options=own, live=live, **options
    )
    settings = config.from_environment_and_flags(flags)
    log.set_up(settings.log_level)
    gc.disable()  # as run does
    from otel_goprobe import start  # noqa: PLC0415 - once the arguments are known to be right

    return start.run(settings)
