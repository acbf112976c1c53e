"""Records of bpf/tools/network.bpf.c -> what they say of both ends; called by network.py."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BEGUN, DONE, ACCEPTED, CLOSED, LISTENS, RETRANSMITTED, RESET, NAME = range(8)
"""enum network_kind."""
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
        return "unix", "", f"@{_text(raw[1:])}" if raw[:1] == b"\0" else _text(raw), 0
    protocol = _PROTOCOLS.get(int(record["protocol"]), str(int(record["protocol"])))
    port = int(record["local_port" if kind in (LISTENS, ACCEPTED) else "port"])
    asked = _HOST_PORT.fullmatch(name(record)) if kind == BEGUN else None
    host = asked["host"] if asked and (asked["port"] == str(port) or not asked["port"].isdecimal()) else ""
    return protocol, "" if _is_address(host) else host.rstrip("."), address(record), port


def name(record: np.void) -> str:
    """Return the text that Go was given: ``host:port``, or the name that it looked up."""
    return bytes(record["name"])[: int(record["name_bytes"])].decode("utf-8", "replace")


def address(record: np.void) -> str:
    """Return the other side's address; of what is listened on, the own."""
    own = int(record["header"]["kind"]) == LISTENS
    found = ipaddress.IPv6Address(bytes(record["local_address" if own else "address"]))
    return str(found.ipv4_mapped or found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
