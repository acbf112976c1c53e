"""Resident memory of the agent, kept to what it works with; start.py makes one `Memory`, before any thread."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

M_ARENA_MAX = -8
"""Parameter of mallopt(3), malloc.h."""
MADV_DONTNEED = 4
"""Advice of madvise(2), asm-generic/mman-common.h."""

_MAPPED_FILE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ [0-9a-f:]+ \d+ +/", re.ASCII)
"""A line of /proc/PID/smaps that begins a file's private mapping without the right to write: proc_pid_smaps(5)."""


class Memory:
    """The C library's allocator and the pages of libraries; neither keeps what a burst or the start took.

    The allocator is glibc's; nothing is done with another one.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._trim = getattr(self._libc, "malloc_trim", None)
        if hasattr(self._libc, "mallopt"):
            self._libc.mallopt(M_ARENA_MAX, 1)  # the exporter's thread uses what the loop has freed
        self.used = True
        """Whether anything has been done since the last `give_back`."""
        self._holds_start = True

    def give_back(self) -> None:
        """Return free pages to the kernel; the first time, those of libraries' files as well.

        Most of those only the imports touched. What is needed again comes back from the page cache, without a read.
        """
        if self._holds_start:
            self._holds_start = False
            with contextlib.suppress(OSError):  # a kernel without CONFIG_PROC_PAGE_MONITOR has no smaps
                for start, end in _unchanged_files():
                    self._libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
        if self._trim and self.used:
            self.used = False
            self._trim(0)


def _unchanged_files() -> Iterator[tuple[int, int]]:
    """Yield start and end of each read-only mapping of a file that has no page of its own: all is in the file.

    Relocated constants and text with breakpoints have such pages, which would be lost.
    """
    place = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := _MAPPED_FILE.match(line):
            place = int(found[1], 16), int(found[2], 16)
        elif place and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                yield place
            place = None
