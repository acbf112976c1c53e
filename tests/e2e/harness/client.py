"""Requests as bytes on sockets, and the seven kinds that the tests send in a prime number."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and what its answer's status and route have to be where routes are on a plain ServeMux."""

    target: str
    """What stands in the request line, such as ``/ok?x=1``."""
    method: str = "GET"
    body: bytes = b""
    status: int = 200
    """0: the connection is closed without an answer."""
    route: str = ""
    """Pattern of the innermost handler; empty where there is none."""
    headers: tuple[tuple[str, str], ...] = ()
    version: str = "1.1"

    def encode(self, *, close: bool, host: str) -> bytes:
        """Return the bytes to send."""
        headers = dict(self.headers)
        if self.version == "1.1":
            headers.setdefault("Host", host)
            if close:
                headers.setdefault("Connection", "close")
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {self.target} HTTP/{self.version}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


def page(target: str, status: int = 200, **more: object) -> Request:
    """Return a request for a page that has its own path as route."""
    return Request(target, status=status, route=target.partition("?")[0], **more)  # type: ignore[arg-type] # the fields'


SEVEN_KINDS = (
    page("/ok"),
    Request("/nowhere", status=404),
    page("/get-only", 405, method="POST"),
    page("/fail", 500),
    page("/panic?kind=error", 0),
    page("/empty"),
    page("/echo", method="POST", body=b"x" * 2**20),
)


def in_turn(count: int, kinds: Sequence[Request] = SEVEN_KINDS) -> list[Request]:
    """Return `count` requests, the kinds in turn."""
    return list(itertools.islice(itertools.cycle(kinds), count))


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    """0: nothing."""
    body: bytes = field(repr=False)
    local_port: int


class Connection:
    """One client connection, on which requests can follow each other."""

    def __init__(self, port: int, *, tls: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.host = f"127.0.0.1:{port}"
        self.local_port: int = self._socket.getsockname()[1]
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self._socket = context.wrap_socket(self._socket)
        self._file = self._socket.makefile("rb")

    def send(self, *requests: Request, close: bool = False) -> None:
        """Send requests at once: several are a pipeline."""
        try:
            self._socket.sendall(b"".join(request.encode(close=close, host=self.host) for request in requests))
        except (BrokenPipeError, ConnectionResetError):
            """The server may answer and close before it has read a body."""

    def receive(self, method: str = "GET") -> Answer:
        """Return the next answer that isn't a 1xx; status 0 if the connection ends without one."""
        status = 100
        while 100 <= status < 200 and status != 101:
            first = self._line()
            if not first:
                return Answer(0, b"", self.local_port)
            status = int(first.split()[1])
            headers = {}
            while (line := self._line()).strip():
                key, _, value = line.decode("latin-1").partition(":")
                headers[key.lower()] = value.strip()
        if method == "HEAD" or status in {101, 204, 304}:
            return Answer(status, b"", self.local_port)
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(self._chunks())
        elif "content-length" in headers:
            body = self._file.read(int(headers["content-length"]))
        else:
            body = self._file.read()
        return Answer(status, body, self.local_port)

    def ask(self, request: Request, *, close: bool = False) -> Answer:
        """Send one request and return its answer."""
        self.send(request, close=close)
        return self.receive(request.method)

    def raw(self, data: bytes) -> bytes:
        """Send bytes and return all that comes until the other side closes."""
        self._socket.sendall(data)
        return self._file.read()

    def _line(self) -> bytes:
        try:
            return self._file.readline()
        except ConnectionResetError:
            return b""

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self._file.readline().strip() or b"0", 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()


def ask(port: int, request: Request | str, *, tls: bool = False) -> Answer:
    """Send one request on a connection of its own."""
    if isinstance(request, str):
        request = Request(request)
    with Connection(port, tls=tls) as connection:
        return connection.ask(request, close=True)


def one_after_another(port: int, requests: Iterable[Request]) -> list[Answer]:
    """Send requests on as few connections as their answers allow."""
    answers = []
    connection = Connection(port)
    for request in requests:
        answers.append(connection.ask(request))
        if request.status in {0, 101}:
            connection.__exit__(None, None, None)
            connection = Connection(port)
    connection.__exit__(None, None, None)
    return answers


def at_once(port: int, requests: Sequence[Request], *, tls: bool = False) -> list[Answer]:
    """Send requests at the same moment, each on a connection of its own; answers in the order of the requests."""
    answers: dict[int, Answer] = {}
    together = threading.Barrier(len(requests))

    def send(index: int) -> None:
        with Connection(port, tls=tls) as connection:
            together.wait()
            answers[index] = connection.ask(requests[index], close=True)

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[index] for index in range(len(requests))]


class Load:
    """Requests without a pause from a few threads, counting what fails; a context manager.

    Args:
        keep_alive: several requests a connection; else each on its own.
        pause_s: between two requests of a thread.
    """

    def __init__(
        self, port: int, *, threads: int = 3, keep_alive: bool = True, pause_s: float = 0.0, path: str = "/ok"
    ) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._port = port
        self._keep_alive = keep_alive
        self._pause_s = pause_s
        self._request = Request(path)
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Connection(self._port) as connection:
                    for _ in range(100 if self._keep_alive else 1):
                        answer = connection.ask(self._request, close=not self._keep_alive)
                        with self._counting:
                            if answer.status == 200:
                                self.answered += 1
                            else:
                                self.failures.append(f"status {answer.status}")
                        if self._stop.wait(self._pause_s):
                            break
            except OSError as error:
                with self._counting:
                    self.failures.append(repr(error))

    def more(self, count: int, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until `count` more requests are answered.

        Raises:
            TimeoutError: they aren't.
        """
        goal = self.answered + count
        until = time.monotonic() + timeout_s
        while self.answered < goal:
            if time.monotonic() > until:
                raise TimeoutError(f"{goal - self.answered} of {count} requests aren't answered; {self.failures[:3]}")
            time.sleep(0.005)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
