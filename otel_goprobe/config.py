"""Flags and ``OTEL_*`` variables -> one frozen `Config`; the only reader of ``os.environ``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SelectorKind = Literal["pid", "exe", "port"]


@dataclass(frozen=True, slots=True)
class Selector:
    """One way to name processes."""

    kind: SelectorKind
    value: str
    """Decimal for pid and port, a glob for exe."""


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """Processes that match every selector get `service` as their name."""

    selectors: tuple[Selector, ...]
    service: str = ""
    """Empty: the target's own environment, then its main module."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which processes are to be instrumented."""

    rules: tuple[ServiceRule, ...] = ()
    every: bool = False
    """--all."""
    service: str = ""
    """--service NAME without a selector of its own."""
    sdk: Literal["skip", "trace"] = "skip"
    """What to do with programs that carry an exporting OpenTelemetry SDK."""


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """Where and how spans are sent; every field comes from OTEL_EXPORTER_OTLP_[TRACES_]…"""

    endpoint: str
    """http/protobuf: the whole URL, ``/v1/traces`` included. grpc: scheme://host:port."""
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    compression: Literal["none", "gzip", "deflate"] = "none"
    insecure: bool = False
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    configured: bool = False
    """Whether the user set an endpoint; if not, an absent collector is nothing unusual."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """Sizes and times of the export queue."""

    max_batch_spans: int = 8192
    max_queue_bytes: int = 32 * 2**20
    schedule_delay_s: float = 0.1
    export_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Config:
    """Everything one run of the agent is told."""

    selection: Selection
    otlp: OtlpConfig
    exporter: Literal["otlp", "console", "none"] = "otlp"
    batch: BatchConfig = field(default_factory=BatchConfig)
    wait: bool = True
    """False: --no-wait."""
    command: tuple[str, ...] = ()
    """What stands after ``--``."""
    user: str = ""
    """--user: who runs `command`."""
    exclude_routes: tuple[str, ...] = ()
    """Globs over the route, or over the path where there is no route."""
    url_query: bool = False
    user_agent: bool = False
    max_in_flight: int = 16384
    """Requests at once, over all targets."""
    ring_bytes: int = 4 * 2**20
    """Size of each ring buffer, a power of two."""
    json_lines: bool = False
    summary_json: str = ""
    resource: tuple[tuple[str, str], ...] = ()
    """OTEL_RESOURCE_ATTRIBUTES of the agent's own environment, decoded."""
    service_name: str = ""
    """OTEL_SERVICE_NAME of the agent's own environment."""
    log_level: Literal["none", "error", "warn", "info", "debug"] = "info"
    disabled: bool = False
    """OTEL_SDK_DISABLED."""
