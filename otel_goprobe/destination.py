"""``OTEL_EXPORTER_*``, ``OTEL_METRIC*`` and the flags for them -> where and how telemetry goes; called by config.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from otel_goprobe.environment import AppendPath, Environment, grpc_endpoint, http_endpoint, parse_headers
from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]
MetricsExporter = Literal["otlp", "prometheus", "console", "none"]
LogsExporter = Literal["otlp", "console", "none"]
ExemplarFilter = Literal["trace_based", "always_on", "always_off"]
Telemetry = Literal["TRACES", "METRICS", "LOGS"]
"""As the names of variables have it."""

DEFAULT_ENDPOINTS: Final[Mapping[Protocol, str]] = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
"""OTLP exporter specification, "Endpoint URLs for OTLP/HTTP" and the table above it."""

_PATHS: Final[Mapping[Telemetry, str]] = {"TRACES": "/v1/traces", "METRICS": "/v1/metrics", "LOGS": "/v1/logs"}


def _append(source: str) -> AppendPath:
    """When the path goes behind the endpoint; for the variables the specification says so."""
    if source == "--endpoint":
        return "to no path"
    return "always" if source == "OTEL_EXPORTER_OTLP_ENDPOINT" else "never"


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """Where and how spans or metrics are sent; every field comes from OTEL_EXPORTER_OTLP_* variables or a flag."""

    endpoint: str
    """http/protobuf: the whole URL, ``/v1/traces`` or ``/v1/metrics`` included. grpc: scheme://host:port."""
    protocol: Protocol = "http/protobuf"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names in lower case, values decoded; they hold secrets."""
    timeout_s: float = 10.0
    compression: Compression = "none"
    insecure: bool = False
    """No TLS: the endpoint's scheme is http."""
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    configured: bool = False
    """Whether the user set an endpoint; if not, an absent collector is nothing unusual."""


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where durations of requests go, and how."""

    exporters: tuple[MetricsExporter, ...] = ()
    """None twice; empty: nothing is counted."""
    otlp: OtlpConfig | None = None
    """Set where one of `exporters` is ``otlp``."""
    prometheus_host: str = "localhost"
    prometheus_port: int = 9464
    interval_s: float = 60.0
    timeout_s: float = 30.0
    delta: bool = False
    """Each export over OTLP holds what came since the last one; else since the target was attached."""
    exponential: bool = False
    exemplars: ExemplarFilter = "trace_based"


def otlp_from(
    environment: Environment, telemetry: Telemetry, endpoint_flag: str | None, protocol_flag: Protocol | None
) -> OtlpConfig:
    """Read OTEL_EXPORTER_OTLP_* for one kind of telemetry; a flag wins.

    Raises:
        UsageError: endpoint, headers or certificates are wrong; telemetry would go astray.
    """
    protocol = protocol_flag
    if protocol is None:
        by_default = environment.choice("OTEL_EXPORTER_OTLP_PROTOCOL", get_args(Protocol), "http/protobuf")
        by_default = environment.choice(f"OTEL_EXPORTER_OTLP_{telemetry}_PROTOCOL", get_args(Protocol), by_default)
        protocol = cast("Protocol", by_default)
    source, text = (
        ("--endpoint", endpoint_flag) if endpoint_flag is not None else environment.otlp("ENDPOINT", telemetry)
    )
    if source == "--endpoint" and telemetry != "TRACES":
        text = text.removesuffix(_PATHS["TRACES"])
    configured = bool(text) or endpoint_flag is not None
    if not configured:
        text = DEFAULT_ENDPOINTS[protocol]
    if protocol == "grpc":
        insecure = environment.boolean(environment.otlp("INSECURE", telemetry)[0])
        endpoint = grpc_endpoint(text, source, insecure=insecure)
    else:
        endpoint = http_endpoint(text, source, _PATHS[telemetry], append=_append(source))
    client_key, client_certificate = (
        environment.file(name, telemetry) for name in ("CLIENT_KEY", "CLIENT_CERTIFICATE")
    )
    if client_key and not client_certificate:
        raise UsageError(
            f"{environment.otlp('CLIENT_KEY', telemetry)[0]} is set without a certificate",
            "set …_CLIENT_CERTIFICATE too",
        )
    headers_source, headers = environment.otlp("HEADERS", telemetry)
    compressions = get_args(Compression)
    compression = environment.choice("OTEL_EXPORTER_OTLP_COMPRESSION", compressions, "none")
    compression = environment.choice(f"OTEL_EXPORTER_OTLP_{telemetry}_COMPRESSION", compressions, compression)
    timeout_s = environment.seconds("OTEL_EXPORTER_OTLP_TIMEOUT", 1, 10.0)
    return OtlpConfig(
        endpoint=endpoint,
        protocol=protocol,
        headers=parse_headers(headers, headers_source),
        timeout_s=environment.seconds(f"OTEL_EXPORTER_OTLP_{telemetry}_TIMEOUT", 1, timeout_s),
        compression=cast("Compression", compression),
        insecure=endpoint.startswith("http:"),
        certificate=environment.file("CERTIFICATE", telemetry),
        client_certificate=client_certificate,
        client_key=client_key,
        configured=configured,
    )


@dataclass(frozen=True, slots=True)
class Live:
    """A tool's table on the terminal, and when it ends."""

    tool: str
    seconds: float | None = None
    """None: until SIGINT or SIGTERM."""
    json_rows: bool = False
    """One JSON object a row and line, at the end."""
    sort: str = ""
    """Key of a column; empty: the tool's own choice."""
    limit: int = 40
    """Rows that are shown; JSON has all."""


@dataclass(frozen=True, slots=True)
class LogsConfig:
    """Where log records of tools go."""

    exporter: LogsExporter = "none"
    otlp: OtlpConfig | None = None
    """Set where `exporter` is ``otlp``."""


def logs_from(
    environment: Environment, by_default: LogsExporter, endpoint_flag: str | None, protocol_flag: Protocol | None
) -> LogsConfig:
    """Read what concerns log records.

    Args:
        environment: the variables.
        by_default: without OTEL_LOGS_EXPORTER: where spans go.
        endpoint_flag: see `otlp_from`.
        protocol_flag: see `otlp_from`.

    Raises:
        UsageError: telemetry would go astray.
    """
    exporter = cast("LogsExporter", environment.choice("OTEL_LOGS_EXPORTER", get_args(LogsExporter), by_default))
    otlp = otlp_from(environment, "LOGS", endpoint_flag, protocol_flag) if exporter == "otlp" else None
    return LogsConfig(exporter, otlp)


def metrics_from(
    environment: Environment, exporters_flag: str, endpoint_flag: str | None, protocol_flag: Protocol | None
) -> MetricsConfig:
    """Read what concerns metrics; a flag wins.

    Without OTEL_METRICS_EXPORTER none: metrics cost the target time, and many trace backends take none.

    Raises:
        UsageError: the flag names no exporter, or telemetry would go astray.
    """
    known = get_args(MetricsExporter)
    if exporters_flag:
        names = tuple(name.strip() for name in exporters_flag.split(","))
        if not set(names) <= set(known):
            raise UsageError(
                f"--metrics-exporter: {exporters_flag} names something else than {', '.join(known)}",
                "write one, or several with commas, such as otlp,prometheus",
            )
    else:
        names = environment.choices("OTEL_METRICS_EXPORTER", known)
    exporters = tuple(dict.fromkeys(cast("MetricsExporter", name) for name in names if name != "none"))
    preference = environment.choice(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", ("cumulative", "delta", "lowmemory"), "cumulative"
    )
    default = MetricsConfig()
    port = environment.integer("OTEL_EXPORTER_PROMETHEUS_PORT", 1)
    return MetricsConfig(
        exporters=exporters,
        otlp=otlp_from(environment, "METRICS", endpoint_flag, protocol_flag) if "otlp" in exporters else None,
        prometheus_host=environment.text("OTEL_EXPORTER_PROMETHEUS_HOST") or default.prometheus_host,
        prometheus_port=default.prometheus_port if port is None else port,
        interval_s=environment.seconds("OTEL_METRIC_EXPORT_INTERVAL", 1, default.interval_s),
        timeout_s=environment.seconds("OTEL_METRIC_EXPORT_TIMEOUT", 1, default.timeout_s),
        delta=preference != "cumulative",
        exponential=_exponential(environment, exporters),
        exemplars=cast(
            "ExemplarFilter",
            environment.choice("OTEL_METRICS_EXEMPLAR_FILTER", get_args(ExemplarFilter), default.exemplars),
        ),
    )


def _exponential(environment: Environment, exporters: tuple[MetricsExporter, ...]) -> bool:
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    explicit, exponential = aggregations = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
    if environment.choice(name, aggregations, explicit) != exponential or not exporters:
        return False
    if "prometheus" in exporters:
        environment.warnings.append(f"{name}: Prometheus' text format has no exponential histograms: ignored")
        return False
    return True
