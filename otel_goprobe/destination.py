"""``OTEL_EXPORTER_OTLP_*`` and the flags for them -> where and how telemetry is sent; called by config.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from otel_goprobe.environment import AppendPath, Environment, grpc_endpoint, http_endpoint, parse_headers
from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]
Telemetry = Literal["TRACES", "METRICS"]
"""As the names of variables have it."""

DEFAULT_ENDPOINTS: Final[Mapping[Protocol, str]] = {
    "http/protobuf": "http://localhost:4318",
    "grpc": "http://localhost:4317",
}
"""OTLP exporter specification, "Endpoint URLs for OTLP/HTTP" and the table above it."""

_PATHS: Final[Mapping[Telemetry, str]] = {"TRACES": "/v1/traces", "METRICS": "/v1/metrics"}


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
    if source == "--endpoint" and telemetry == "METRICS":
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
