"""TCP sockets that a process listens on, in its own network namespace; called by processes.py and watch.py.

psutil reads /proc/net of the agent's namespace alone (`NetConnections.retrieve` in its _pslinux.py, 7.2.2), so a target
in a container would show no port, or another's. This reads /proc/PID/net/tcp and tcp6, whose first lines are the
listening sockets: `tcp_seq_start` of net/ipv4/tcp_ipv4.c walks the listeners before the connections, so ten thousand
connections cost nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LISTEN: Final = b"0A"
"""TCP_LISTEN of include/net/tcp_states.h, in hexadecimal."""
_TABLES: Final = ("net/tcp", "net/tcp6")


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
    listeners: dict[int, int] = {}
    for table in _TABLES:
        try:
            with open(f"/proc/{pid}/{table}", "rb") as lines:  # noqa: PTH123 - Path.open costs twice as much here
                listeners |= parse_listeners(lines)
        except OSError:
            continue
    return listeners


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
