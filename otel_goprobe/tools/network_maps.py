"""The BPF maps of network.h and network_datagrams.h: bytes of what is open now; network.py asks and writes.

A socket stands there by slot and descriptor, one of UDP that isn't connected by each other end as well.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from otel_goprobe.errors import MapFullError

if TYPE_CHECKING:
    import numpy as np

    from otel_goprobe.tools.base import Map, Surroundings
    from otel_goprobe.tools.network_table import Path

_ELEMENT = struct.Struct("<QQQQQII")
"""struct network_connection: began_ns, closed_ns, sent, received, sock, state, duplicate."""
_KEY = struct.Struct("<II")
"""struct network_key: slot, descriptor."""
_PEER = struct.Struct("<QIHH16s")
"""struct network_peer: the socket's began_ns, slot, port, reserved, address."""
_FLOW = struct.Struct("<QQ")
"""struct network_flow: sent, received."""
_OPEN = 1
"""NETWORK_OPEN."""

OpenBytes = dict[tuple[int, int], tuple[int, int, int]]
"""Slot and descriptor -> when it began, sent, received."""


class Sockets:
    """Descriptors of targets that are connections.

    Attributes:
        without_room: how many that were open before the map had no room for.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.without_room = 0

    @property
    def _map(self) -> Map:
        return self._around.map_of("network", "network_connections")

    def add(self, slot: int, descriptor: int, began_ns: int) -> None:
        """Have one counted that was open before."""
        try:
            self._map.update(_KEY.pack(slot, descriptor), _ELEMENT.pack(began_ns, 0, 0, 0, 0, _OPEN, 0))
        except MapFullError:
            self.without_room += 1

    def bytes(self) -> OpenBytes:
        """Return what all have sent and received; some of them are closed."""
        keys, values = self._map.items()
        elements = zip(_KEY.iter_unpack(keys), _ELEMENT.iter_unpack(values), strict=True)
        return {(slot, fd): (began_ns, sent, received) for (slot, fd), (began_ns, _, sent, received, *_) in elements}

    def forget(self, slot: int, known: OpenBytes) -> None:
        """Delete those of a target that has ended."""
        for key in known:
            if key[0] == slot:
                self._map.delete(_KEY.pack(*key))


class Flows:
    """Other ends of UDP sockets that aren't connected.

    Attributes:
        of_socket: slot and when a socket began -> its other ends, as the map has them, with their paths.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.of_socket: dict[tuple[int, int], dict[bytes, Path]] = {}

    @property
    def _map(self) -> Map:
        return self._around.map_of("network", "network_flows")

    def add(self, record: np.void, path: Path) -> bool:
        """Take one in; False if it was known: the kernel had to drop it for others meanwhile."""
        slot, began_ns = int(record["header"]["slot"]), int(record["began_ns"])
        known = self.of_socket.setdefault((slot, began_ns), {})
        key = _PEER.pack(began_ns, slot, int(record["port"]), 0, bytes(record["address"]))
        new = key not in known
        known.setdefault(key, path)
        return new

    def bytes(self) -> list[tuple[Path, int, int]]:
        """Return the path of each, and what it has been sent and has sent."""
        if not self.of_socket:
            return []
        keys, values = self._map.items()
        paths = {key: path for ends in self.of_socket.values() for key, path in ends.items()}
        ends = (keys[at : at + _PEER.size] for at in range(0, len(keys), _PEER.size))
        counted = zip(ends, _FLOW.iter_unpack(values), strict=True)
        return [(paths[key], sent, received) for key, (sent, received) in counted if key in paths]

    def closed(self, slot: int, began_ns: int) -> None:
        """Add up those of a socket that is closed; delete them."""
        for key, path in self.of_socket.pop((slot, began_ns), {}).items():
            counted = self._map.lookup(key)
            if counted:
                sent, received = _FLOW.unpack(counted)
                path.sent += sent
                path.received += received
                self._map.delete(key)
            path.open -= 1
            path.closed += 1

    def forget(self, slot: int) -> None:
        """Add up those of a target that has ended."""
        for key in [key for key in self.of_socket if key[0] == slot]:
            self.closed(*key)
