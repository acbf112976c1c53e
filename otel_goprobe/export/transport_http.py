"""OTLP over http/protobuf: encoded bytes -> one POST -> `Answer`; made by otlp.py.

A transport of our own, on `http.client`, because the official exporter (opentelemetry-exporter-otlp-proto-http 1.45.2)
has no documented way to send encoded bytes, keeps the response (and so a partial success) to itself, takes a redirect
for success, reads the environment behind the configuration's back, and can't be cut off while it waits for an answer,
which `run` must be able to do to end within five seconds. It also costs 12 MB less.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import ssl
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from otel_goprobe import __version__
from otel_goprobe.errors import UsageError
from otel_goprobe.export.answer import Answer, Fault, accepted

if TYPE_CHECKING:
    from otel_goprobe.config import OtlpConfig

_RETRYABLE = frozenset({429, 502, 503, 504})
"""https://opentelemetry.io/docs/specs/otlp/ "Retryable Response Codes"."""

_MAX_RESPONSE_BYTES = 4 * 2**20

USER_AGENT = f"OTel-OTLP-Exporter-otel-goprobe/{__version__}"


class HttpTransport:
    """One kept-alive connection to ``config.endpoint``; proxies are not used.

    Raises:
        UsageError: the endpoint is no http(s) URL, or a certificate or key can't be read.
    """

    def __init__(self, config: OtlpConfig) -> None:
        url = urlsplit(config.endpoint)
        try:
            port = url.port
        except ValueError:
            port = -1
        if url.scheme not in ("http", "https") or not url.hostname or port == -1:
            raise UsageError(
                f"the endpoint {config.endpoint!r} isn't a URL for http/protobuf",
                "write it as http://host:4318, or https://…",
            )
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._compression = config.compression
        self._headers = {"Content-Type": "application/x-protobuf", "User-Agent": USER_AGENT, **dict(config.headers)}
        if config.compression != "none":
            self._headers["Content-Encoding"] = config.compression
        self._connection = (
            http.client.HTTPSConnection(url.hostname, port, context=_tls(config))
            if url.scheme == "https"
            else http.client.HTTPConnection(url.hostname, port)
        )
        self._aborted = False

    def send(self, request: bytes, timeout_s: float) -> Answer:
        """Post `request`; a kept connection that turns out closed is opened anew, once, without counting as a retry."""
        body = self._compressed(request)
        deadline = time.monotonic() + timeout_s
        kept = self._connection.sock is not None
        answer = self._attempt(body, deadline)
        if kept and answer.fault is Fault.LOST and not self._aborted:
            answer = self._attempt(body, deadline)
        return answer

    def abort(self) -> None:
        """Shut the socket down under a running `send`; one that still connects can't be reached."""
        self._aborted = True
        connected = self._connection.sock
        if connected is not None:
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)  # SSLSocket's own would pull its state away

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _compressed(self, request: bytes) -> bytes:
        if self._compression == "gzip":
            return gzip.compress(request, 6)
        return zlib.compress(request) if self._compression == "deflate" else request

    def _attempt(self, body: bytes, deadline: float) -> Answer:
        try:
            return self._exchange(body, deadline)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return _fault(error)

    def _exchange(self, body: bytes, deadline: float) -> Answer:
        connection = self._connection
        connection.timeout = max(deadline - time.monotonic(), 0.001)
        if connection.sock is None:
            connection.connect()
        if self._aborted:
            raise ConnectionAbortedError("cut off")
        connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        connection.request("POST", self._path, body, self._headers)
        response = connection.getresponse()
        content = response.read(_MAX_RESPONSE_BYTES)
        if not response.isclosed():  # longer than anything that OTLP answers
            connection.close()
        if 200 <= response.status < 300:
            return accepted(content, str(response.status))
        retryable = response.status in _RETRYABLE
        return Answer(
            Fault.STATUS,
            response.reason,
            str(response.status),
            retryable=retryable,
            retry_after_s=_retry_after(response.getheader("Retry-After")) if retryable else None,
        )


def _tls(config: OtlpConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.certificate or None)
        if config.client_certificate:
            context.load_cert_chain(config.client_certificate, config.client_key or None)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (config.certificate, config.client_certificate, config.client_key)))
        raise UsageError(
            f"a certificate or key for the collector can't be used ({files}): {error}",
            "check the files that OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY name (PEM)",
        ) from error
    return context


def _retry_after(value: str | None) -> float | None:
    """Read seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _fault(error: OSError | http.client.HTTPException) -> Answer:
    """Name an exception; the order is from special to general."""
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Fault, bool], ...] = (
        (socket.gaierror, Fault.NAME, True),
        (TimeoutError, Fault.TIMEOUT, True),
        (ConnectionRefusedError, Fault.REFUSED, True),
        ((ssl.SSLEOFError, ssl.SSLZeroReturnError), Fault.LOST, True),
        (ssl.SSLError, Fault.TLS, False),
        (ConnectionError, Fault.LOST, True),
        (OSError, Fault.UNREACHABLE, True),
        (http.client.IncompleteRead, Fault.LOST, True),
        (http.client.HTTPException, Fault.FOREIGN, False),
    )
    fault, retryable = next((fault, retryable) for kind, fault, retryable in kinds if isinstance(error, kind))
    return Answer(fault, str(error) or type(error).__name__, retryable=retryable)
