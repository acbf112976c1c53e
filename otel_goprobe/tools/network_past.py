"""The sockets that a process has already -> what network.py starts with; from /proc."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass

import psutil

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Socket:
    """One that is open."""

    descriptor: int
    direction: str
    """``out``, ``in`` (its local port is listened on, too) or ``listen``."""
    protocol: str
    address: str
    """Of the other side; of a listening one its own."""
    port: int


def sockets_of(pid: int) -> list[Socket]:
    """Return a process's connected and listening sockets; none where they may not be looked at."""
    try:
        found = psutil.Process(pid).net_connections("all")
    except (psutil.Error, OSError) as error:
        log.warning("connections that pid %d has already aren't known: %s", pid, error)
        return []
    listening = {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN and one.laddr}
    sockets = []
    for one in found:
        if one.family == socket.AF_UNIX:
            path = one.raddr or one.laddr
            if path and one.fd >= 0:
                sockets.append(Socket(one.fd, "in" if one.laddr else "out", "unix", str(path), 0))
        elif one.status == psutil.CONN_LISTEN:
            sockets.append(Socket(one.fd, "listen", "tcp", one.laddr.ip, one.laddr.port))
        elif one.raddr and one.fd >= 0:
            came = one.type == socket.SOCK_STREAM and one.laddr.port in listening
            protocol = "tcp" if one.type == socket.SOCK_STREAM else "udp"
            port = one.laddr.port if came else one.raddr.port
            sockets.append(Socket(one.fd, "in" if came else "out", protocol, one.raddr.ip, port))
    return sockets
