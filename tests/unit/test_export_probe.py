"""`probe`, doctor's real empty export: each way to fail is told apart, with its own remedy."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from export_receivers import Reply, blackhole, free_port, grpc_receiver, http_receiver

from otel_goprobe.config import OtlpConfig
from otel_goprobe.export import ProbeResult, probe


def _probe(port: int, protocol: Any = "http/protobuf", scheme: str = "http", **options: Any) -> ProbeResult:
    return probe(OtlpConfig(f"{scheme}://127.0.0.1:{port}", protocol, **options), 1.0)


@pytest.fixture(scope="module", name="certificate")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a self-signed certificate for 127.0.0.1, with its key in the same file."""
    pem = tmp_path_factory.mktemp("tls") / "both.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        [*request.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", f"{pem}.crt"],
        check=True,
        capture_output=True,
    )
    pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
    return pem


def test_a_receiver_that_takes_spans() -> None:
    """An empty export is accepted by both protocols."""
    with http_receiver() as received:
        assert _probe(received.port).ok
        assert received.spans == 0
        assert len(received.accepted) == 1
    with grpc_receiver() as received:
        assert _probe(received.port, "grpc") == ProbeResult(
            ok=True, detail=f"http://127.0.0.1:{received.port} (grpc) takes spans", remedy=""
        )


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_nobody_listens(protocol: str) -> None:
    """Refused: start one, point elsewhere, or use the console."""
    result = _probe(free_port(), protocol)
    assert not result.ok
    assert "connection refused" in result.detail
    assert "--exporter console" in result.remedy


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_name_is_unknown(protocol: Any) -> None:
    """The host's name is in the remedy."""
    result = probe(OtlpConfig("http://collector.invalid:4318", protocol), 3.0)
    assert not result.ok
    assert "name can't be resolved" in result.detail
    assert "'collector.invalid'" in result.remedy


@pytest.mark.parametrize("connects", [True, False])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_nobody_answers(protocol: str, connects: bool) -> None:
    """A time-out, whether the connection is made or not."""
    with blackhole(connects=connects) as port:
        result = _probe(port, protocol)
    assert not result.ok
    assert "no answer in time" in result.detail
    assert "OTEL_EXPORTER_OTLP_TIMEOUT" in result.remedy


@pytest.mark.parametrize(
    ("protocol", "status", "remedy"),
    [
        ("http/protobuf", 401, "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http/protobuf", 403, "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http/protobuf", 404, "check the path"),
        ("http/protobuf", 405, "check the path"),
        ("http/protobuf", 415, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
        ("http/protobuf", 503, "own log"),
        ("grpc", "UNAUTHENTICATED", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("grpc", "UNIMPLEMENTED", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
    ],
)
def test_the_receiver_refuses(protocol: str, status: int | str, remedy: str) -> None:
    """The status is shown, and what it asks for."""
    with (http_receiver if protocol == "http/protobuf" else grpc_receiver)(Reply(status)) as received:
        result = _probe(received.port, protocol)
    assert not result.ok
    assert str(status) in result.detail
    assert remedy in result.remedy


def test_the_ports_are_mixed_up() -> None:
    """Http to a gRPC port, and the other way round, name the other protocol and its usual port."""
    with grpc_receiver() as received:
        result = _probe(received.port)
        assert not result.ok
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in result.remedy
        assert "4318" in result.remedy
    with http_receiver() as received:
        result = _probe(received.port, "grpc")
        assert not result.ok
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in result.remedy
        assert "4317" in result.remedy


def test_tls(certificate: Path) -> None:
    """A certificate of an unknown CA is told; with the CA, and a client's certificate, spans are taken."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    with http_receiver(tls=context) as received:
        distrusted = _probe(received.port, scheme="https")
        assert not distrusted.ok
        assert "TLS failed" in distrusted.detail
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in distrusted.remedy
        assert not _probe(received.port, "grpc", "https").ok
        pem = str(certificate)
        assert _probe(received.port, scheme="https", certificate=pem).ok
        assert _probe(received.port, scheme="https", certificate=pem, client_certificate=pem).ok
        assert _probe(received.port, scheme="https", certificate=pem, client_certificate=pem, client_key=pem).ok


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_https_to_a_plain_port(protocol: str) -> None:
    """The remedy offers http://."""
    with (http_receiver if protocol == "http/protobuf" else grpc_receiver)() as received:
        result = _probe(received.port, protocol, "https")
    assert not result.ok
    assert "http://" in result.remedy or "PROTOCOL" in result.remedy
