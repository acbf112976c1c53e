"""OTLP over gRPC: encoded bytes -> one unary call -> `Answer`; made by otlp.py, and imported only when gRPC is chosen.

On grpcio's public, generic `Channel.unary_unary` without a serializer, for the reasons that transport_http.py gives:
the official exporter offers encoded bytes no documented way in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # ships no types
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types

from otel_goprobe.errors import UsageError
from otel_goprobe.export.answer import Answer, Fault, accepted
from otel_goprobe.export.transport_http import USER_AGENT

if TYPE_CHECKING:
    from otel_goprobe.config import OtlpConfig

_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""https://opentelemetry.io/docs/specs/otlp/ "Failures"; RESOURCE_EXHAUSTED only where the server sends RetryInfo."""

_COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # it would be read from the environment, and http doesn't use one either
    ("grpc.use_local_subchannel_pool", 1),  # `doctor` and a new exporter begin without another's back-off
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.primary_user_agent", USER_AGENT),
)

_SAID_BY_GRPC = (
    ("connection refused", Fault.REFUSED),
    ("dns", Fault.NAME),
    ("name resolution", Fault.NAME),
    ("domain name", Fault.NAME),
    ("http1", Fault.FOREIGN),
    ("settings frame", Fault.FOREIGN),
    ("handshake", Fault.TLS),
    ("ssl", Fault.TLS),
    ("certificate", Fault.TLS),
    ("timed out", Fault.TIMEOUT),
    ("unreachable", Fault.UNREACHABLE),
)
"""Part of the details of UNAVAILABLE, in small letters -> fault. grpcio 1.85 tells them apart by nothing else; a text
that changes costs a precise word in a message, nothing more."""


class GrpcTransport:
    """One channel to ``config.endpoint``, for one method, such as `otlp.TRACES`'s.

    TLS as OTEL_EXPORTER_OTLP_INSECURE's definition wants it: ``https`` always, ``http`` never, without a scheme unless
    ``insecure``.

    Raises:
        UsageError: a certificate or key can't be read, or the endpoint names no host.
    """

    def __init__(self, config: OtlpConfig, method: str) -> None:
        url = urlsplit(config.endpoint)
        has_authority = url.scheme in ("http", "https")
        address = url.netloc if has_authority else config.endpoint
        if not address:
            raise UsageError(
                f"the endpoint {config.endpoint!r} names no host", "write it as http://host:4317, or https://…"
            )
        options = [*_OPTIONS]
        compression = _COMPRESSION[config.compression]
        plain = url.scheme == "http" or (not has_authority and config.insecure)
        self._channel = (
            grpc.insecure_channel(address, options, compression)
            if plain
            else grpc.secure_channel(address, _credentials(config), options, compression)
        )
        self._export = self._channel.unary_unary(method)
        self._metadata = tuple((key.lower(), value) for key, value in config.headers)
        self._call: Any = None
        self._aborted = False

    def send(self, request: bytes, timeout_s: float) -> Answer:
        """Call the service's ``Export``."""
        if self._aborted:
            return Answer(Fault.LOST, "cut off")
        self._call = self._export.future(request, timeout=timeout_s, metadata=self._metadata)
        if self._aborted:
            self._call.cancel()
        try:
            response: bytes = self._call.result()
        except grpc.FutureCancelledError:
            return Answer(Fault.LOST, "cut off")
        except grpc.RpcError:
            return _fault(self._call)
        return accepted(response, "OK")

    def abort(self) -> None:
        """Cancel a running call."""
        self._aborted = True
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _credentials(config: OtlpConfig) -> grpc.ChannelCredentials:
    def pem(name: str) -> bytes | None:
        return Path(name).read_bytes() if name else None

    try:
        return grpc.ssl_channel_credentials(
            pem(config.certificate), pem(config.client_key), pem(config.client_certificate)
        )
    except OSError as error:
        raise UsageError(
            f"a certificate or key for the collector can't be used: {error}",
            "check the files that OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY name (PEM)",
        ) from error


def _fault(call: Any) -> Answer:
    """Read a finished call's status."""
    code, details = call.code(), call.details() or ""
    retry_after_s = _retry_info(call.trailing_metadata() or ())
    retryable = code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None)
    fault = Fault.STATUS
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        fault = Fault.TIMEOUT
    elif code is grpc.StatusCode.UNAVAILABLE:
        lowered = details.lower()
        fault = next((fault for part, fault in _SAID_BY_GRPC if part in lowered), Fault.STATUS)
    return Answer(fault, details, code.name, retryable=retryable, retry_after_s=retry_after_s)


def _retry_info(metadata: Any) -> float | None:
    """Find ``google.rpc.RetryInfo``: in the status details, where the specification wants it, or on its own."""
    found = error_details_pb2.RetryInfo()
    try:
        for key, value in metadata:
            if key == "google.rpc.retryinfo-bin":
                found.ParseFromString(value)
                return _seconds(found)
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    if detail.Unpack(found):
                        return _seconds(found)
    except DecodeError:
        return None
    return None


def _seconds(retry: error_details_pb2.RetryInfo) -> float:
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
