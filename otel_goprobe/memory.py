"""What glibc's allocator keeps for itself, kept small; start.py makes one, before any thread."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""Parameter of mallopt(3), malloc.h."""


class Memory:
    """glibc's allocator, kept from keeping what a burst took; nothing with another C library."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._trim = getattr(libc, "malloc_trim", None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_ARENA_MAX, 1)  # the exporter's thread uses what the loop has freed
        self.used = True
        """Whether anything has been done since the last `give_back`."""

    def give_back(self) -> None:
        """Return free pages to the kernel."""
        if self._trim and self.used:
            self.used = False
            self._trim(0)
