"""The sockets that a process has already -> what network.py starts with; from /proc/PID/net and /proc/PID/fd.

Files of the process's own, since its network namespace may be another than the agent's.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_ESTABLISHED, _LISTEN = "01", "0A"
"""include/net/tcp_states.h, as the kernel writes them; a UDP socket that is connected is in the first, too."""
_ACCEPTS, _CONNECTED = 0x10000, 3
"""__SO_ACCEPTCON and SS_CONNECTED, include/uapi/linux/net.h."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One that is open."""

    descriptors: tuple[int, ...]
    """That stand for it: one, or its duplicates as well."""
    direction: str
    """``out``, ``in`` (its local port is listened on, too) or ``listen``."""
    protocol: str
    address: str
    """Of the other side; of a listening one its own."""
    port: int


def sockets_of(pid: int) -> list[Socket]:
    """Return a process's connected and listening sockets; none where they may not be looked at."""
    proc = Path(f"/proc/{pid}")
    try:
        by_inode: dict[str, tuple[int, ...]] = {}
        for entry in (proc / "fd").iterdir():
            found = _SOCKET.fullmatch(_target(entry))
            if found:
                inode = found[1]
                by_inode[inode] = (*by_inode.get(inode, ()), int(entry.name))
        return [*_internet(proc / "net", by_inode), *_unix(proc / "net", by_inode)] if by_inode else []
    except OSError as error:
        log.warning("connections that pid %d has already aren't known: %s", pid, error)
        return []


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def _internet(net: Path, by_inode: dict[str, tuple[int, ...]]) -> Iterator[Socket]:
    """Read net/tcp and its like: Documentation/networking/proc_net_tcp.rst."""
    own = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in _lines(net / name):
            fields = line.split()
            if fields[9] in by_inode and fields[3] in (_ESTABLISHED, _LISTEN):
                own.append((name[:3], fields[3], _end(fields[1]), _end(fields[2]), by_inode[fields[9]]))
    listening = {(protocol, local[1]) for protocol, state, local, _, _ in own if state == _LISTEN}
    for protocol, state, local, remote, descriptors in own:
        came = (protocol, local[1]) in listening
        if state == _LISTEN:
            yield Socket(descriptors, "listen", protocol, *local)
        else:
            yield Socket(descriptors, "in" if came else "out", protocol, remote[0], (local if came else remote)[1])


def _unix(net: Path, by_inode: dict[str, tuple[int, ...]]) -> Iterator[Socket]:
    """Read net/unix: net/unix/af_unix.c, unix_seq_show. One that connected has no name there, nor its other side's."""
    for line in _lines(net / "unix"):
        fields = line.split(maxsplit=7)
        if len(fields) < 8 or fields[6] not in by_inode:
            continue
        listens = int(fields[3], 16) & _ACCEPTS
        if listens or int(fields[5], 16) == _CONNECTED:
            yield Socket(by_inode[fields[6]], "listen" if listens else "in", "unix", fields[7], 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()[1:]
    except FileNotFoundError:  # no IPv6
        return []


def _end(text: str) -> tuple[str, int]:
    """Return address and port: words of four bytes, each in the machine's order."""
    address, _, port = text.partition(":")
    raw = struct.pack(f"={len(address) // 8}I", *(int(address[at : at + 8], 16) for at in range(0, len(address), 8)))
    ip = ipaddress.ip_address(raw)
    return str(getattr(ip, "ipv4_mapped", None) or ip), int(port, 16)
