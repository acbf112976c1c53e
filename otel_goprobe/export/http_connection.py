"""One kept-alive HTTP/1.1 connection: a POST -> `Response`; transport_http.py has one.

http.client would do, but that it imports ssl and the parser of e-mails, which take 2 MB and 25 ms of the start. Grammar:
RFC 9112.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?\r?\n")
_CHUNK_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]*)?\r?\n")
_MAX_LINE_BYTES: Final = 64 * 2**10
_MAX_LINES: Final = 256
"""Of headers, or of trailers."""
_MAX_BODY_BYTES: Final = 4 * 2**20
"""More than anything that OTLP answers."""
_SMALL_BYTES: Final = 16 * 2**10
"""A body that is sent together with the headers: to copy it costs less than a second packet."""


class ForeignAnswerError(Exception):
    """What came isn't HTTP/1."""


class Response(NamedTuple):
    """What came back."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """Names in small letters; of several with one name the last."""
    body: bytes
    """At most 4 MiB of it."""


class HttpConnection:
    """Connects when it has to.

    Args:
        host: name or address, an IPv6 address without brackets.
        port: None for the scheme's own.
        tls: None for http.
    """

    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None = None) -> None:
        usual = 443 if tls else 80
        self._address = (host, port or usual)
        self._tls = tls
        name = f"[{host}]" if ":" in host else host.encode("idna").decode()
        self._host = name if self._address[1] == usual else f"{name}:{self._address[1]}"
        self.sock: socket.socket | None = None
        """None where it isn't connected."""
        self._stream: BinaryIO | None = None

    def connect(self, timeout_s: float) -> socket.socket:
        """Connect, unless it is connected; each operation may then take so long.

        Raises:
            OSError: as it says; `ssl.SSLError` is one.
        """
        if self.sock is None:
            plain = socket.create_connection(self._address, timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.sock = self._tls.wrap_socket(plain, server_hostname=self._address[0]) if self._tls else plain
            except OSError:
                plain.close()
                raise
            self._stream = cast("BinaryIO", self.sock.makefile("rb"))
        self.sock.settimeout(timeout_s)
        return self.sock

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request on the connection and read the answer; closed where it can't be used again.

        Raises:
            OSError: the connection broke or timed out.
            ForeignAnswerError: no HTTP/1 came back.
        """
        if self.sock is None or self._stream is None:
            raise ConnectionError("not connected")
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        if len(body) <= _SMALL_BYTES:
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            self.sock.sendall(body)
        response, kept = read_response(self._stream)
        if not kept:
            self.close()
        return response

    def close(self) -> None:
        """Close it; the next `connect` makes a new one."""
        stream, sock, self._stream, self.sock = self._stream, self.sock, None, None
        for each in (stream, sock):
            if each is not None:
                each.close()


def read_response(stream: BinaryIO) -> tuple[Response, bool]:
    """Read the answer to a POST.

    Returns:
        It, and whether the connection can be used for another request.

    Raises:
        ForeignAnswerError: it isn't HTTP/1.
        ConnectionError: it ended in the midst.
    """
    while True:
        line = _line(stream, "the connection was closed")
        match = _STATUS_LINE.fullmatch(line)
        if not match:
            raise ForeignAnswerError(repr(line[:80]))
        headers = _headers(stream)
        status = int(match[2])
        if status >= 200:  # 100 Continue and the like come before the answer
            break
    reason = (match[3] or b"").decode("latin-1").strip()
    kept = match[1] == b"1" and "close" not in headers.get("connection", "").lower()
    body = b""
    if status not in (204, 304):
        body, whole = _body(stream, headers)
        kept = kept and whole
    return Response(status, reason, headers, body), kept


def _line(stream: BinaryIO, what_ended: str = "the answer was cut off") -> bytes:
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        if len(line) == _MAX_LINE_BYTES:
            raise ForeignAnswerError("a line without an end")
        raise ConnectionAbortedError(what_ended if not line else "the answer was cut off")
    return line


def _headers(stream: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MAX_LINES):
        line = _line(stream)
        if not line.strip(b"\r\n"):
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise ForeignAnswerError(repr(line[:80]))
        headers[name.strip().lower()] = value.strip()
    raise ForeignAnswerError(f"more than {_MAX_LINES} headers")


def _body(stream: BinaryIO, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    """Return the body, or its first 4 MiB, and whether the next answer can follow behind it."""
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise ForeignAnswerError(f"Transfer-Encoding: {headers['transfer-encoding']}")
        return _chunks(stream)
    length = headers.get("content-length")
    if length is None:
        return stream.read(_MAX_BODY_BYTES), False
    if not re.fullmatch("[0-9]{1,18}", length):
        raise ForeignAnswerError(f"Content-Length: {length[:80]}")
    return _exactly(stream, min(int(length), _MAX_BODY_BYTES)), int(length) <= _MAX_BODY_BYTES


def _chunks(stream: BinaryIO) -> tuple[bytes, bool]:
    body = b""
    while len(body) < _MAX_BODY_BYTES:
        line = _line(stream)
        match = _CHUNK_LINE.fullmatch(line)
        if not match:
            raise ForeignAnswerError(repr(line[:80]))
        size = int(match[1], 16)
        if not size:
            _headers(stream)  # trailers
            return body, True
        body += _exactly(stream, min(size, _MAX_BODY_BYTES))
        if size > _MAX_BODY_BYTES:
            break
        if _line(stream).strip(b"\r\n"):
            raise ForeignAnswerError("a chunk without an end")
    return body, False


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise ConnectionAbortedError("the answer was cut off")
    return content
