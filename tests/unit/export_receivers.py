"""OTLP receivers on 127.0.0.1 whose answers a test scripts; for test_export_*.py."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # ships no types
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Reply:
    """One scripted answer; `status` is http's number or gRPC's name."""

    status: int | str = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    reset: bool = False
    """Close the connection with RST instead of answering (http)."""
    close: bool = False
    """Answer, then close the connection without having said so (http)."""
    retry_after_s: float | None = None
    """RetryInfo (gRPC)."""


def partial(rejected: int, message: str) -> Reply:
    """A partial success, for http."""
    response = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    )
    return Reply(body=response.SerializeToString())


@dataclass
class Received:
    """What a receiver has seen and what it will say; it says 200 or OK once the script is at its end."""

    port: int = 0
    script: deque[Reply] = field(default_factory=deque)
    default: Reply = field(default_factory=Reply)
    headers: list[dict[str, str]] = field(default_factory=list)
    """In small letters, one per attempt."""
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    accepted: list[ExportTraceServiceRequest] = field(default_factory=list)
    connections: int = 0

    @property
    def spans(self) -> int:
        """Spans of requests that were answered with success."""
        return sum(len(ss.spans) for r in self.accepted for rs in r.resource_spans for ss in rs.scope_spans)

    def next_reply(self) -> Reply:
        """Take the next answer of the script."""
        self.times.append(time.monotonic())
        return self.script.popleft() if self.script else self.default


def _plain(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: Received

    def setup(self) -> None:
        super().setup()
        self.received.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.received.next_reply()
        self.received.paths.append(self.path)
        self.received.headers.append({key.lower(): value for key, value in self.headers.items()})
        time.sleep(reply.delay_s)
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if reply.status == 200:
            plain = _plain(body, self.headers.get("Content-Encoding", ""))
            self.received.accepted.append(ExportTraceServiceRequest.FromString(plain))
        try:
            self.send_response(int(reply.status))
            for key, value in reply.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
        except OSError:  # the client has given up: what several tests are about
            self.close_connection = True
        self.close_connection |= reply.close

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that a test resets."""


@contextmanager
def http_receiver(*script: Reply, port: int = 0, tls: Any = None) -> Iterator[Received]:
    """Run a receiver for http/protobuf; `tls` is an ``ssl.SSLContext``."""
    received = Received(script=deque(script))
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"received": received}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    received.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _TraceService(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802 - gRPC's name
        reply = self._received.next_reply()
        self._received.headers.append(dict(context.invocation_metadata()))
        time.sleep(reply.delay_s)
        if reply.status in (200, "OK"):
            self._received.accepted.append(request)
            return ExportTraceServiceResponse.FromString(reply.body)
        if reply.retry_after_s is not None:
            detail = any_pb2.Any()
            seconds, rest = divmod(reply.retry_after_s, 1)
            detail.Pack(
                error_details_pb2.RetryInfo(
                    retry_delay=duration_pb2.Duration(seconds=int(seconds), nanos=int(rest * 1e9))
                )
            )
            status = status_pb2.Status(code=8, message="scripted", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode[str(reply.status)], "scripted")
        raise AssertionError  # abort has raised


@contextmanager
def grpc_receiver(*script: Reply, port: int = 0) -> Iterator[Received]:
    """Run the official gRPC service."""
    received = Received(script=deque(script))
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_TraceService(received), server)  # type: ignore[no-untyped-call]  # generated
    received.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield received
    finally:
        server.stop(0).wait(2)


@contextmanager
def blackhole(*, connects: bool = True) -> Iterator[int]:
    """Listen on a port whose connections nobody answers; with `connects` False they aren't even made."""
    with socket.create_server(("127.0.0.1", 0), backlog=128 if connects else 0) as server, ExitStack() as stack:
        address = server.getsockname()
        for _ in range(0 if connects else 4):  # the kernel keeps backlog + 1 and ignores the SYN of the others
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address[1]


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
