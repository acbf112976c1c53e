"""TCP sockets that a process listens on, in its own network namespace; called by processes.py and watch.py.

psutil reads /proc/net of the agent's namespace alone (`NetConnections.retrieve` in its _pslinux.py, 7.2.2), so a target
in a container would show no port, or another's. The kernel is asked for the listeners of the agent's own namespace by
sock_diag(7), in 0.1 ms. Where it can't be, and for other namespaces, this reads /proc/PID/net/tcp and tcp6, whose first
lines are the listening sockets (`tcp_seq_start` of net/ipv4/tcp_ipv4.c); behind them the kernel walks its whole table
of connections for more lines that fit into the read, which takes 8 ms on a machine with 24 GiB, few as there may be.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LISTEN: Final = b"0A"
"""TCP_LISTEN of include/net/tcp_states.h, in hexadecimal."""
_TABLES: Final = ("net/tcp", "net/tcp6")


_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLMSG_DONE: Final = 3
_NLMSG_HEADER: Final = struct.Struct("=IHHII")
_DIAG_REQUEST: Final = struct.Struct("=BBBxI48x")
"""struct inet_diag_req_v2 of include/uapi/linux/inet_diag.h: family, protocol, extensions, bits of states."""
_DIAG_PORT: Final = struct.Struct("!4xH")
_DIAG_INODE: Final = struct.Struct("=68xI")
"""Of struct inet_diag_msg: ``id.idiag_sport`` and ``idiag_inode``."""


def asked_listeners() -> dict[int, int] | None:
    """All listening TCP sockets of this process's network namespace: inode -> port; None if the kernel doesn't tell."""
    listeners: dict[int, int] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as diag:
            for family in (socket.AF_INET, socket.AF_INET6):
                request = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << int(_LISTEN, 16))
                size = _NLMSG_HEADER.size + len(request)
                diag.send(_NLMSG_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 0, 0) + request)
                while (some := parse_diagnosed(diag.recv(1 << 16))) is not None:
                    listeners |= some.listeners
                    if some.last:
                        break
                else:
                    return None
    except OSError:
        return None
    return listeners


class Diagnosed(NamedTuple):
    """What one datagram of sock_diag(7) says."""

    listeners: dict[int, int]
    """Inode of each socket -> its local port."""
    last: bool
    """Whether it ends the list."""


def parse_diagnosed(datagram: bytes) -> Diagnosed | None:
    """Read the messages of one datagram; None if they aren't a list of sockets, such as where there is no tcp_diag."""
    listeners: dict[int, int] = {}
    at = 0
    while at + _NLMSG_HEADER.size <= len(datagram):
        size, kind, *_ = _NLMSG_HEADER.unpack_from(datagram, at)
        body = at + _NLMSG_HEADER.size
        if kind == _NLMSG_DONE:
            return Diagnosed(listeners, last=True)
        if kind != _SOCK_DIAG_BY_FAMILY or not body + _DIAG_INODE.size <= at + size <= len(datagram):
            return None
        (port,), (inode,) = _DIAG_PORT.unpack_from(datagram, body), _DIAG_INODE.unpack_from(datagram, body)
        listeners[inode] = port
        at += (size + 3) // 4 * 4
    return Diagnosed(listeners, last=False) if listeners else None


def parse_listeners(lines: Iterable[bytes]) -> dict[int, int]:
    """Read a /proc/PID/net/tcp{,6} up to its first connection.

    Returns:
        Inode of each listening socket -> its local port.
    """
    listeners: dict[int, int] = {}
    for line in lines:
        columns = line.split()
        if len(columns) < 10 or not columns[0].endswith(b":"):
            continue
        if columns[3] != _LISTEN:
            break
        listeners[int(columns[9])] = int(columns[1].rpartition(b":")[2], 16)
    return listeners


def listeners_near(pid: int) -> dict[int, int]:
    """All listening sockets of the network namespace that `pid` is in: inode -> port. Empty if the process is gone."""
    if _is_near(pid) and (asked := asked_listeners()) is not None:
        return asked
    listeners: dict[int, int] = {}
    for table in _TABLES:
        try:
            with open(f"/proc/{pid}/{table}", "rb") as lines:  # noqa: PTH123 - Path.open costs twice as much here
                listeners |= parse_listeners(lines)
        except OSError:
            continue
    return listeners


def _is_near(pid: int) -> bool:
    """Whether it is in this process's network namespace."""
    try:
        return pid == os.getpid() or os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - costs half
    except OSError:
        return False


def held(pid: int, listeners: Mapping[int, int]) -> tuple[int, ...]:
    """The ports of those `listeners` that `pid` holds open, ascending.

    It costs a readlink for each open file of the process, and nothing at all where `listeners` is empty.
    """
    if not listeners:
        return ()
    links = {f"socket:[{inode}]": port for inode, port in listeners.items()}
    found: set[int] = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - names are what is wanted
    except OSError:
        return ()
    for descriptor in descriptors:
        try:
            port = links.get(os.readlink(f"/proc/{pid}/fd/{descriptor}"))  # noqa: PTH115 - `socket:[1]` is no path
        except OSError:
            continue
        if port is not None:
            found.add(port)
    return tuple(sorted(found))


def listening_ports(pid: int) -> tuple[int, ...]:
    """TCP ports that `pid` listens on, ascending; empty if it is gone or its open files may not be read."""
    return held(pid, listeners_near(pid))
