"""Connections of this process between two hosts, and the wire unit at work for it; for tests of it."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Self

from networks import Hosts, inside

from otel_goprobe import kernel, probes
from otel_goprobe.kernel.sockhash import tuple_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

SLOT = 3
TRACE_ID, SPAN_ID = bytes(range(0x80, 0x90)), bytes(range(0x31, 0x39))
LINE = f"traceparent: 00-{TRACE_ID.hex()}-{SPAN_ID.hex()}-01\r\n".encode()
FAMILIES = ("4", "6")


class Exchange:
    """A connection of this process in one namespace to a listener in the other, which keeps all that arrives."""

    def __init__(self, hosts: Hosts, family: str = "4") -> None:
        far, kind = (hosts.FAR_IPV4, socket.AF_INET) if family == "4" else (hosts.FAR_IPV6, socket.AF_INET6)
        self._listener = inside(
            hosts.far,
            lambda: socket.create_server((far, 0), family=kind),
        )
        port = self._listener.getsockname()[1]
        self.client = inside(hosts.near, lambda: socket.create_connection((far, port), 10))
        self.client.settimeout(None)  # blocking: sendfile(2) is called on it
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted, _ = self._listener.accept()
        self._accepted.settimeout(10)
        self.tuple = tuple_of(self.client.getsockname()[:2], self.client.getpeername()[:2])
        self._arrived = bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self._accepted.recv(1 << 20):
            self._arrived += data

    def arrived(self) -> bytes:
        """End the connection and return all that was sent."""
        self.client.shutdown(socket.SHUT_WR)
        self._thread.join(20)
        assert not self._thread.is_alive()
        return bytes(self._arrived)

    def close(self) -> None:
        """Let go of the sockets."""
        for one in (self.client, self._accepted, self._listener):
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._thread.join(20)
        self.close()


class Watched:
    """The unit at work for this process."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self.program = kernel.load(probes.wire_unit(kernel.bpf_folder()), cache_dir=cache_dir)
        kernel.describe_sockets(self.program)
        self.sockets = kernel.Sockets(self.program)

    def watch(self) -> int:
        """Take in this process."""
        self.program.maps["tgid_slots"].update(kernel.u32(os.getpid()), kernel.u32(SLOT))
        return self.sockets.watch(os.getpid(), SLOT)

    def is_member(self, connection: Exchange) -> bool:
        """Whether a request on this connection would be armed."""
        return self.program.maps["wire_sockets"].lookup(connection.tuple) == bytes([SLOT, 0, 0, 0, 1, 0, 0, 0])

    def arm(self, connection: Exchange, *, flags: int = 1, check: bool = True) -> None:
        """Do as wire_arm."""
        assert self.is_member(connection) or not check
        value = TRACE_ID + SPAN_ID + kernel.u32(SLOT) + kernel.u32(flags)
        self.program.maps["wire_armed"].update(connection.tuple, value)

    def is_armed(self, connection: Exchange) -> bool:
        """Whether the next that it sends is looked at."""
        return self.program.maps["wire_armed"].lookup(connection.tuple) is not None

    def counts(self) -> dict[str, int]:
        """Return the counters that aren't 0."""
        names = probes.counters()
        values = self.program.maps["counters"].sums(SLOT, 1)
        return {name: int(value) for name, value in zip(names, values, strict=True) if value}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sockets.close()
        self.program.close()


def injected(request: bytes) -> bytes:
    """Return a request with the header behind its first line."""
    first, newline, rest = request.partition(b"\n")
    return first + newline + LINE + rest
