"""Flags and ``OTEL_*`` variables -> one frozen `Config`; the only reader of ``os.environ``.

commands/ calls `from_environment_and_flags`; everything below it reads the `Config`.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from otel_goprobe.destination import (
    Compression,
    ExemplarFilter,
    Live,
    LogsConfig,
    MetricsConfig,
    MetricsExporter,
    OtlpConfig,
    Protocol,
    logs_from,
    metrics_from,
    otlp_from,
)
from otel_goprobe.environment import Environment
from otel_goprobe.errors import UsageError
from otel_goprobe.sampling import Sampler, Sampling, sampling_from
from otel_goprobe.selection import SdkPolicy, Selection, Selector, SelectorKind, ServiceRule, selection_from_flags

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BatchConfig",
    "Compression",
    "Config",
    "ExemplarFilter",
    "Exporter",
    "Flags",
    "Live",
    "LogLevel",
    "LogsConfig",
    "MetricsConfig",
    "MetricsExporter",
    "OtlpConfig",
    "Propagation",
    "Protocol",
    "Sampler",
    "Sampling",
    "SdkPolicy",
    "Selection",
    "Selector",
    "SelectorKind",
    "ServiceRule",
    "cache_dir",
    "environment_log_level",
    "from_environment_and_flags",
]

Exporter = Literal["otlp", "console", "none"]
LogLevel = Literal["none", "error", "warn", "info", "debug"]
Propagation = Literal["none", "read", "local", "wire", "write"]
"""How traces go from process to process; each includes those before it: headers that come in, connections within this
host, headers put on the wire in the kernel, headers written into the target's memory."""

SYSTEM_CACHE: Final = Path("/var/cache/otel-goprobe")


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """Sizes and times of the export queue."""

    max_batch_spans: int = 8192
    max_queue_bytes: int = 32 * 2**20
    schedule_delay_s: float = 0.5
    """Between two exports, unless there is a full batch before."""
    export_timeout_s: float = 30.0
    max_queue_spans: int | None = None
    """OTEL_BSP_MAX_QUEUE_SIZE; None: `max_queue_bytes` alone bounds the queue."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything one run of the agent is told."""

    selection: Selection
    otlp: OtlpConfig
    exporter: Exporter = "otlp"
    batch: BatchConfig = field(default_factory=BatchConfig)
    wait: bool = True
    """False: --no-wait."""
    command: tuple[str, ...] = ()
    """What stands after ``--``."""
    user: str = ""
    """Who runs `command`, as `discovery.launch.account_of` reads it: --user, else who called sudo; empty: who runs the
    agent."""
    launch_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The agent's own variables, for `command`; empty without one."""
    exclude_routes: tuple[str, ...] = ()
    """Globs over the route, or over the path where there is no route."""
    url_query: bool = False
    user_agent: bool = False
    tracecontext: bool = True
    """OTEL_PROPAGATORS names it and spans go somewhere: incoming ``traceparent`` and ``tracestate`` are followed."""
    b3: bool = False
    """It names ``b3``: so is the header ``b3``, where there is no ``traceparent``."""
    b3multi: bool = False
    """It names ``b3multi``: likewise ``X-B3-TraceId`` and those with it."""
    propagation: Propagation = "local"
    library_flags: frozenset[str] = frozenset()
    """Those that libraries declare for themselves (otel_goprobe/library_flags.py), where they are set."""
    library_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Likewise those that take names, with the names."""
    lineage: bool = False
    """Whether starts of goroutines are watched, for parents over several of them."""
    span_links: bool = False
    """Whether channels are watched, for links to the requests whose items a goroutine received."""
    sampling: Sampling = field(default_factory=Sampling)
    max_in_flight: int = 16384
    """Requests at once, over all targets."""
    max_series: int = 4096
    """Combinations of attributes of metrics, over all targets."""
    service_graph: bool = False
    """Whether calls between services are counted from spans."""
    ring_bytes: int = 4 * 2**20
    """Size of each ring buffer, a power of two."""
    json_lines: bool = False
    summary_json: str = ""
    resource: tuple[tuple[str, str], ...] = ()
    """OTEL_RESOURCE_ATTRIBUTES of the agent's own environment, decoded."""
    service_name: str = ""
    """OTEL_SERVICE_NAME of the agent's own environment."""
    log_level: LogLevel = "info"
    disabled: bool = False
    """OTEL_SDK_DISABLED."""
    attribute_value_length_limit: int | None = None
    """OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, in characters; None: as long as a record holds."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    tools: tuple[str, ...] = ()
    """Stems of those that run."""
    tool_options: Mapping[str, object] = field(default_factory=dict)
    """Of all of them, by name."""
    live: Live | None = None
    """The one whose table is shown; None: telemetry is exported."""
    cache_dir: Path = SYSTEM_CACHE
    """For compiled bundles; may not exist yet, and is never one that another user can write."""
    warnings: tuple[str, ...] = ()
    """What was ignored in the environment, a sentence each."""

    def has(self, option: str) -> bool:
        """Tell whether the run has an option that probes ask for, a library's own or one of these attributes."""
        return option in self.library_flags or bool(self.library_names.get(option) or getattr(self, option, False))

    @property
    def local(self) -> bool:
        """Whether requests between processes of this host are joined by their connection."""
        return self._propagates("local")

    @property
    def wire(self) -> bool:
        """Whether the kernel puts headers into plaintext requests to other hosts."""
        return self._propagates("wire")

    @property
    def write(self) -> bool:
        """Whether headers are written into the target's memory."""
        return self._propagates("write")

    def _propagates(self, least: Propagation) -> bool:
        ways = get_args(Propagation)
        return ways.index(self.propagation) >= ways.index(least)

    @property
    def follows_b3(self) -> bool:
        """Whether headers of B3 are looked for."""
        return self.b3 or self.b3multi

    @property
    def red(self) -> bool:
        """Whether the kernel adds up durations."""
        return bool(self.metrics.exporters)

    @property
    def red_exponential(self) -> bool:
        """Whether it does so in buckets of exponential histograms."""
        return self.metrics.exponential

    @property
    def traces(self) -> bool:
        """Whether spans go anywhere: to an exporter, or to tools, which want to know their routes."""
        return self.exporter != "none" or bool(self.tools)


@dataclass(frozen=True, slots=True)
class Flags:
    """What stands on the command line; None and empty mean that the flag isn't there."""

    services: tuple[str, ...] = ()
    """``NAME`` or ``NAME=pid:N``, ``NAME=exe:GLOB``, ``NAME=port:N``."""
    pids: tuple[int, ...] = ()
    exes: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    every: bool = False
    wait: bool = True
    sdk: SdkPolicy = "skip"
    exclude_routes: tuple[str, ...] = ()
    exporter: Exporter | None = None
    metrics_exporter: str = ""
    """A name, or several with commas."""
    endpoint: str | None = None
    protocol: Protocol | None = None
    json_lines: bool = False
    url_query: bool = False
    user_agent: bool = False
    sample: tuple[str, ...] = ()
    """``RATIO`` or ``SERVICE=RATIO``."""
    always_sample: str = ""
    """``errors,slower=500ms``."""
    propagation: Propagation = "local"
    library_flags: frozenset[str] = frozenset()
    library_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lineage: bool = False
    span_links: bool = False
    max_in_flight: int = 16384
    max_series: int = 4096
    service_graph: bool = False
    ring_bytes: int = 4 * 2**20
    summary_json: str = ""
    user: str = ""
    log_level: LogLevel | None = None
    tools: tuple[str, ...] = ()
    tool_options: Mapping[str, object] = field(default_factory=dict)
    live: Live | None = None
    command: tuple[str, ...] | None = None
    """What stands after ``--``; empty where nothing does."""


def from_environment_and_flags(flags: Flags, variables: Mapping[str, str] | None = None) -> Config:
    """Join the command line and the environment; a flag wins.

    Args:
        flags: the command line.
        variables: the environment; the process's own by default.

    Raises:
        UsageError: a flag is wrong or contradicts another, or a variable would send spans astray (endpoint, headers,
            certificates). Any other malformed variable ends up in `Config.warnings`.
    """
    environment = Environment(os.environ if variables is None else variables)
    exporter = flags.exporter or cast(
        "Exporter", environment.choice("OTEL_TRACES_EXPORTER", get_args(Exporter), "otlp")
    )
    metrics = metrics_from(environment, flags.metrics_exporter, flags.endpoint, flags.protocol)
    _check_output(flags, exporter, metrics)
    selection = selection_from_flags(
        services=flags.services,
        pids=flags.pids,
        exes=flags.exes,
        ports=flags.ports,
        every=flags.every,
        sdk=flags.sdk,
        launches=flags.command is not None,
    )
    followed = _followed(flags, environment, exporter)
    limit = environment.integer("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", 1)
    if limit is None:
        limit = environment.integer("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", 1)
    return Config(
        selection=selection,
        otlp=otlp_from(environment, "TRACES", flags.endpoint, flags.protocol),
        metrics=metrics,
        logs=logs_from(environment, exporter, flags.endpoint, flags.protocol) if flags.tools else LogsConfig(),
        tools=flags.tools,
        tool_options=flags.tool_options,
        live=flags.live,
        exporter=exporter,
        batch=_batch(environment),
        wait=flags.wait,
        command=flags.command or (),
        user=_user(flags, environment),
        launch_environment=dict(environment.variables) if flags.command else {},
        exclude_routes=flags.exclude_routes,
        url_query=flags.url_query,
        user_agent=flags.user_agent and exporter != "none",
        tracecontext="tracecontext" in followed,
        b3="b3" in followed,
        b3multi="b3multi" in followed,
        propagation=flags.propagation,
        library_flags=flags.library_flags,
        library_names=flags.library_names,
        lineage=flags.lineage,
        span_links=flags.span_links,
        sampling=sampling_from(environment, flags.sample, flags.always_sample),
        max_in_flight=flags.max_in_flight,
        max_series=flags.max_series,
        service_graph=flags.service_graph,
        ring_bytes=flags.ring_bytes,
        json_lines=flags.json_lines,
        summary_json=flags.summary_json,
        resource=environment.pairs("OTEL_RESOURCE_ATTRIBUTES"),
        service_name=environment.text("OTEL_SERVICE_NAME"),
        log_level=flags.log_level or _log_level(environment),
        disabled=environment.boolean("OTEL_SDK_DISABLED"),
        attribute_value_length_limit=limit,
        cache_dir=cache_dir(environment.variables),
        warnings=tuple(environment.warnings),
    )


def _followed(flags: Flags, environment: Environment, exporter: Exporter) -> tuple[str, ...]:
    """Return the propagators whose incoming headers are followed."""
    names = environment.propagators()
    return names if flags.propagation != "none" and exporter != "none" else ()


def environment_log_level(variables: Mapping[str, str] | None = None) -> LogLevel:
    """OTEL_LOG_LEVEL, or ``info`` where it is unset or wrong; for what happens before there is a `Config`."""
    return _log_level(Environment(os.environ if variables is None else variables))


def _log_level(environment: Environment) -> LogLevel:
    return cast("LogLevel", environment.choice("OTEL_LOG_LEVEL", get_args(LogLevel), "info"))


def _check_output(flags: Flags, exporter: Exporter, metrics: MetricsConfig) -> None:
    if flags.json_lines and exporter != "console":
        raise UsageError("--json prints the spans of the console exporter", "add --exporter console")
    if exporter != "otlp" and not metrics.otlp and (flags.endpoint or flags.protocol):
        flag = "--endpoint" if flags.endpoint else "--protocol"
        remedy = f"leave out {flag}, or add --exporter otlp"
        raise UsageError(f"{flag} has no meaning: the exporter is {exporter!r}, which sends nothing", remedy)
    if any(not glob.strip() for glob in flags.exclude_routes):
        raise UsageError("--exclude-route: the glob is empty", "write a glob such as '/healthz*'")
    if flags.summary_json:
        directory = Path(flags.summary_json).parent
        if not os.access(directory, os.W_OK | os.X_OK) or Path(flags.summary_json).is_dir():
            raise UsageError(
                f"--summary-json: {flags.summary_json} can't be written", "name a file in a directory of yours"
            )


def _batch(environment: Environment) -> BatchConfig:
    default = BatchConfig()
    queue_spans = environment.integer("OTEL_BSP_MAX_QUEUE_SIZE", 1)
    batch_spans = environment.integer("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1) or default.max_batch_spans
    return BatchConfig(
        max_batch_spans=min(batch_spans, queue_spans or batch_spans),
        schedule_delay_s=environment.seconds("OTEL_BSP_SCHEDULE_DELAY", 0, default.schedule_delay_s),
        export_timeout_s=environment.seconds("OTEL_BSP_EXPORT_TIMEOUT", 1, default.export_timeout_s),
        max_queue_spans=queue_spans,
    )


def _user(flags: Flags, environment: Environment) -> str:
    """Who runs the command; root's SUDO_UID and SUDO_GID say who called sudo."""
    if flags.command is None:
        if flags.user:
            raise UsageError("--user says who runs a command, and there is none", "add -- and the command")
        return ""
    if not flags.command:
        raise UsageError("no command stands after --", "write it there: -- ./shop --listen :8080")
    uid = environment.integer("SUDO_UID", 0) if os.geteuid() == 0 else None
    if flags.user or uid is None:
        return flags.user
    gid = environment.integer("SUDO_GID", 0)
    return str(uid) if gid is None else f"{uid}:{gid}"


def cache_dir(variables: Mapping[str, str] | None = None) -> Path:
    """The first directory that only this user can write: root loads what lies there into the kernel."""
    environment = Environment(os.environ if variables is None else variables)
    chosen = environment.text("OTEL_GOPROBE_CACHE")
    if chosen:
        return Path(chosen).absolute()
    home, xdg = environment.text("HOME"), environment.text("XDG_CACHE_HOME")
    candidates = [SYSTEM_CACHE] if os.geteuid() == 0 else []
    candidates += [
        Path(base) / "otel-goprobe" for base in (xdg, f"{home}/.cache" if home else "") if base.startswith("/")
    ]
    candidates.append(Path(tempfile.gettempdir()) / f"otel-goprobe-{os.geteuid()}")
    for path in candidates:
        present = next(parent for parent in (path, *path.parents) if os.access(parent, os.F_OK))
        status = present.stat()
        private = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        sticky = present != path and status.st_mode & stat.S_ISVTX
        if os.access(present, os.W_OK | os.X_OK) and (private or sticky):
            return path
    return Path(tempfile.mkdtemp(prefix="otel-goprobe-"))
