"""Records of bpf/tools/network.bpf.c -> what they say of both ends; called by network.py."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BEGUN, DONE, ACCEPTED, CLOSED, LISTENS, RETRANSMITTED, RESET, NAME, DUPLICATED, CLOSED_RANGE, SENT_TO, RECEIVED_FROM = (
    range(12)
)
"""enum network_kind."""
DIALS = (BEGUN, SENT_TO)
DIRECTIONS = {BEGUN: "out", SENT_TO: "out", ACCEPTED: "in", RECEIVED_FROM: "in", LISTENS: "listen"}
"""Of the records by which paths become known."""
LOOKUP_ERRORS = ("", "lookup failed", "not found", "timeout")
"""enum network_lookup_error."""
_UNIX = 1
"""AF_UNIX."""
_PROTOCOLS = {6: "tcp", 17: "udp"}
"""IPPROTO_*."""
_HOST_PORT = re.compile(r"\[?(?P<host>[^\[\]]*?)\]?:(?P<port>\w+)")


def destination(record: np.void) -> tuple[str, str, str, int]:
    """Return protocol, the name that was asked for, address or path, and port; of what comes, the own port."""
    kind = int(record["header"]["kind"])
    if int(record["family"]) == _UNIX:
        raw = bytes(record["unix_path"])
        abstract = _text(raw[1:]) if raw[:1] == b"\0" else ""
        return "unix", "", f"@{abstract}" if abstract else _text(raw), 0
    protocol = _PROTOCOLS.get(int(record["protocol"]), str(int(record["protocol"])))
    port = int(record["local_port" if kind in (LISTENS, ACCEPTED, RECEIVED_FROM) else "port"])
    return protocol, _host(name(record), port) if kind in DIALS else "", address(record), port


def name(record: np.void) -> str:
    """Return the text that Go was given: ``host:port``, or the name that it looked up."""
    return bytes(record["name"])[: int(record["name_bytes"])].decode("utf-8", "replace")


def address(record: np.void) -> str:
    """Return the other side's address; of what is listened on, the own."""
    return own_address(record) if int(record["header"]["kind"]) == LISTENS else _address(record["address"].tobytes())


def own_address(record: np.void) -> str:
    """Return this side's address."""
    return _address(record["local_address"].tobytes())


@functools.lru_cache(4096)
def _host(asked: str, port: int) -> str:
    """Return the name of what was dialled, if it was dialled by a name."""
    found = _HOST_PORT.fullmatch(asked)
    host = found["host"] if found and (found["port"] == str(port) or not found["port"].isdecimal()) else ""
    return "" if _is_address(host) else host.rstrip(".")


@functools.lru_cache(4096)
def _address(raw: bytes) -> str:
    found = ipaddress.IPv6Address(raw)
    return str(found.ipv4_mapped or found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
