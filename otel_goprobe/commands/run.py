"""``otel-goprobe run``: the command line -> a `Config`, which start.py runs; called by cli.py."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from otel_goprobe import config, library_flags, log, tools
from otel_goprobe.environment import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_goprobe.tools.base import Tool

_COMMAND = "otel_goprobe.command"
"""Key in click's context for what stands after ``--``."""


def _ring_bytes(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Accept what BPF_MAP_TYPE_RINGBUF does, a power of two from one page on; bounded by sense at 1 GiB."""
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if size & (size - 1) or not 4096 <= size <= 2**30:
        raise click.BadParameter(f"{value} is no power of two from 4KiB to 1GiB")
    return size


def _library_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the flags that libraries declare for themselves."""
    for flag in library_flags.declared():
        name = f"--{flag.name.replace('_', '-')}"
        if flag.takes_names:
            option = click.option(name, flag.name, default="", metavar="NAME,NAME", help=flag.help)
        else:
            option = click.option(name, flag.name, is_flag=True, help=flag.help)
        command = option(command)
    return command


def _tools_named(args: list[str]) -> list[Tool]:
    """Return the tools that --with names, whose options then are there; a name that none has is told of later."""
    values = [after for flag, after in pairwise([*args, ""]) if flag == "--with"]
    values += [arg.removeprefix("--with=") for arg in args if arg.startswith("--with=")]
    names = dict.fromkeys(name.strip() for value in values for name in value.split(","))
    return [tools.tool(name) for name in names if name in tools.stems()]


class Launching(click.Command):
    """A command that may start another, which stands behind ``--``: click would not tell it from a stray argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what stands behind ``--`` in the context, see `command_behind`; click reads the rest."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[cut + 1 :])
            args = args[:cut]
        rest = super().parse_args(ctx, args)
        stray = ctx.params.pop("stray")
        if stray and not ctx.resilient_parsing:
            ctx.fail(f"unexpected argument {stray[0]!r}: a command goes behind --, a process behind --pid or --exe")
        return rest


def command_behind(ctx: click.Context) -> tuple[str, ...] | None:
    """Return what stands behind ``--``; None where there is none."""
    behind: tuple[str, ...] | None = ctx.meta.get(_COMMAND)
    return behind


class _RunCommand(Launching):
    """Has the options of the tools that ``--with`` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the tools' names first."""
        for tool in _tools_named(args[: args.index("--")] if "--" in args else args):
            own = {parameter.name for parameter in self.params}
            self.params.extend(option for option in tool.every_option if option.name not in own)
        return super().parse_args(ctx, args)


@click.command(
    "run",
    cls=_RunCommand,
    options_metavar="[OPTIONS] [-- COMMAND ARGS...]",
    short_help="Trace Go processes, or a command that is started.",
)
@click.argument("stray", nargs=-1, metavar="")
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="NAME[=SELECTOR]",
    help="service.name of what is selected; SELECTOR: pid:N, exe:GLOB or port:N (repeatable).",
)
@click.option(
    "--pid", "pids", multiple=True, type=click.IntRange(min=1), metavar="N", help="Trace this process (repeatable)."
)
@click.option("--exe", "exes", multiple=True, metavar="GLOB", help="Trace processes whose executable's path matches.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Trace processes that listen on this TCP port.",
)
@click.option(
    "--all", "every", is_flag=True, help="Trace every Go process, each named by its own environment or module."
)
@click.option("--no-wait", is_flag=True, help="Exit with 3 where nothing matches, instead of waiting for it.")
@click.option(
    "--sdk",
    type=click.Choice(["skip", "trace"]),
    default="skip",
    show_default=True,
    help="What to do with programs that export with an OpenTelemetry SDK.",
)
@click.option(
    "--exclude-route",
    "exclude_routes",
    multiple=True,
    metavar="GLOB",
    help="No spans for this route or path (repeatable).",
)
@click.option(
    "--exporter",
    type=click.Choice(["otlp", "console", "none"]),
    help="Where spans go [OTEL_TRACES_EXPORTER; default: otlp].",
)
@click.option(
    "--metrics-exporter",
    default="",
    metavar="NAMES",
    help="Where durations of requests go: otlp, prometheus, console, several with commas, or none "
    "[OTEL_METRICS_EXPORTER; default: none].",
)
@click.option(
    "--endpoint",
    metavar="URL",
    help="OTLP receiver [OTEL_EXPORTER_OTLP_ENDPOINT; default: http://localhost:4318, for grpc :4317].",
)
@click.option(
    "--protocol",
    type=click.Choice(["http/protobuf", "grpc"]),
    help="[OTEL_EXPORTER_OTLP_PROTOCOL; default: http/protobuf]",
)
@click.option(
    "--json", "json_lines", is_flag=True, help="The console exporter prints one JSON object per span and line."
)
@click.option(
    "--sample",
    multiple=True,
    metavar="[SERVICE=]RATIO",
    help="Part of the traces that begin here, 0 to 1 (repeatable) [OTEL_TRACES_SAMPLER; default: all].",
)
@click.option(
    "--always-sample",
    default="",
    metavar="RULES",
    help="Keep spans that were not sampled if they turn out so: errors, slower=500ms, or both with a comma.",
)
@click.option(
    "--propagation",
    type=click.Choice(["none", "read", "local", "wire", "write"]),
    default="local",
    show_default=True,
    help="How traces go from process to process, each with those before it: headers that come in; connections within"
    " this host; headers put on the wire in the kernel; headers written into the process's memory.",
)
@click.option(
    "--lineage",
    is_flag=True,
    help="Watch every start of a goroutine, so that requests that one sends without a context find their parent over"
    " several goroutines.",
)
@click.option(
    "--span-links",
    is_flag=True,
    help="Watch every item that goes over a channel, so that requests that a goroutine sends without a parent are"
    " linked to the requests whose items it received.",
)
@click.option("--url-query", is_flag=True, help="Record url.query, known secrets redacted.")
@click.option("--user-agent", is_flag=True, help="Record user_agent.original.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 2**20),
    default=16384,
    show_default=True,
    metavar="N",
    help="Requests at once, over all processes; more are counted as dropped.",
)
@click.option(
    "--service-graph",
    is_flag=True,
    help="Metrics of who calls whom, traces_service_graph_*, counted from spans; see --metrics-exporter.",
)
@click.option(
    "--with",
    "with_tools",
    default="",
    metavar="TOOL,TOOL",
    help=f"Export what these tools see, too, which then have their options here: {', '.join(tools.stems())}.",
)
@click.option(
    "--max-series",
    type=click.IntRange(1, 2**20),
    default=4096,
    show_default=True,
    metavar="N",
    help="Combinations of attributes of metrics, over all processes; in more the route is _OTHER.",
)
@click.option(
    "--ring-size",
    "ring_bytes",
    callback=_ring_bytes,
    default="4MiB",
    show_default=True,
    metavar="BYTES",
    help="Size of each ring buffer between kernel and agent, a power of two.",
)
@click.option(
    "--summary-json", type=str, default="", metavar="FILE", help="Write the counts of spans there at the end."
)
@click.option(
    "--user", default="", metavar="USER[:GROUP]", help="Who runs COMMAND, by name or number [default: who called sudo]."
)
@click.option(
    "--log-level", type=click.Choice(["none", "error", "warn", "info", "debug"]), help="[OTEL_LOG_LEVEL; default: info]"
)
@_library_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Trace Go processes until SIGINT or SIGTERM, or start COMMAND and trace it until it ends.

    \b
    Without a selector: the one Go executable in sight. What starts later and matches is traced as well.
    Headers, timeout, compression and certificates of the receiver: OTEL_EXPORTER_OTLP_* variables.
    Compiled programs are kept in OTEL_GOPROBE_CACHE, by default /var/cache/otel-goprobe.

    \b
    Examples
      sudo otel-goprobe run --service shop --pid 1234
      sudo otel-goprobe run --service shop --exe '/srv/*/shop' --exclude-route '/healthz*'
      sudo otel-goprobe run --service cart=exe:'*/cart' --service web=port:8080
      sudo otel-goprobe run --all --endpoint http://collector:4318
      sudo otel-goprobe run --exporter console --port 8080
      sudo otel-goprobe run --service shop -- ./shop --listen :8080
    """  # noqa: D301 - \b is click's mark for a block that keeps its lines
    own = {flag: options.pop(flag.name) for flag in library_flags.declared()}
    named = tuple(dict.fromkeys(name.strip() for name in options.pop("with_tools").split(",") if name.strip()))
    unknown = [name for name in named if name not in tools.stems()]
    if unknown:
        raise click.BadParameter(f"there is no tool {unknown[0]}; there are {', '.join(tools.stems())}")
    names = {str(option.name) for stem in named for option in tools.tool(stem).every_option}
    tool_options = {name: options.pop(name) for name in names}
    flags = config.Flags(
        library_flags=frozenset(flag.name for flag, value in own.items() if value and not flag.takes_names),
        library_names={flag.name: library_flags.names_of(flag, own[flag]) for flag in own if flag.takes_names},
        wait=not options.pop("no_wait"),
        command=command_behind(ctx),
        tools=named,
        tool_options=tool_options,
        **options,
    )
    settings = config.from_environment_and_flags(flags)
    log.set_up(settings.log_level)

    gc.disable()  # what is imported stays: looking for garbage in it takes a fifteenth of the start
    from otel_goprobe import start  # noqa: PLC0415 - numpy and the rest, once the arguments are known to be right

    return start.run(settings)
