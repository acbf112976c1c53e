"""Stacks of dials -> the application's own frame; called by network.py, by which few stacks are seen very often."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from otel_goprobe.gobinary import Frame
    from otel_goprobe.tools.base import Surroundings

MAX_KEPT = 4096
"""Stacks; beyond it they are resolved anew."""
_OWN_ADDRESS = "net.srcAddrs"
"""src/net/addrselect.go."""


class Callers:
    """Who dials, by slot and stack."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._kept: dict[tuple[int, bytes], Frame | None] = {}

    def code(self, header: np.void) -> Frame | None:
        """Return the first frame of a record's stack that is the application's own."""
        pcs = header["stack"][: header["frames"]]
        key = int(header["slot"]), pcs.tobytes()
        if key not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = self._around.code(key[0], pcs.tolist())
        return self._kept[key]

    def asks_for_its_own_address(self, header: np.void, port: int) -> bool:
        """Tell whether a UDP socket is connected only to learn by which address one would get there.

        Both resolvers do so to sort addresses, glibc's to port 0.
        """
        if not port:
            return True
        pcs = header["stack"][: header["frames"]].tolist()
        return any(frame.function == _OWN_ADDRESS for frame in self._around.stack(int(header["slot"]), pcs))

    def forget(self, slot: int) -> None:
        """Hear that a slot is to be used for another process."""
        self._kept = {key: frame for key, frame in self._kept.items() if key[0] != slot}
