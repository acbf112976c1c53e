"""A BPF ring buffer of one record size -> arrays of records, read through shared memory without a system call.

The agent looks at `Ring.fill` every 10 to 200 ms and calls `Ring.drain` when it is worth that (pace.py). Layout of the
mapped pages: kernel/bpf/ringbuf.c (page 0 consumer position, page 1 producer position, then the data twice in a row, so
that a record never is split).

Of the data a window is mapped, a part of the ring that moves on with what is read: the kernel maps all pages of it at
once, and they count as the agent's memory.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from otel_goprobe.errors import KernelError
from otel_goprobe.kernel import syscalls
from otel_goprobe.kernel.capabilities import BPF, refusal

if TYPE_CHECKING:
    from otel_goprobe.kernel.maps import Map

# include/uapi/linux/bpf.h: BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ
_BUSY = np.uint32(1 << 31)
_DISCARD = np.uint32(1 << 30)
_HEADER_BYTES = 8

WINDOW_BYTES = 2**18
"""Of data, mapped at once: to move on costs some 10 µs."""


class Ring:
    """The one reader of a ring buffer in which every record has ``dtype.itemsize`` bytes.

    Args:
        ring: a map of type BPF_MAP_TYPE_RINGBUF; it must outlive the reader.
        dtype: of a record; a plain ``V256`` where several structs of one size share the ring, viewed by the caller.

    Raises:
        KernelError: the ring can't be mapped.
    """

    def __init__(self, ring: Map, dtype: npt.DTypeLike) -> None:
        if ring.spec.type != syscalls.MAP_RINGBUF:
            raise ValueError(f"map {ring.spec.name} is no ring buffer")
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.size = ring.spec.max_entries
        """Bytes, headers included."""
        self.discarded = 0
        """Records that BPF reserved and gave back."""
        self._ring = ring
        stride = (self.dtype.itemsize + _HEADER_BYTES + 7) // 8 * 8
        self._entry = np.dtype(
            {"names": ["length", "record"], "formats": ["<u4", self.dtype], "offsets": [0, 8], "itemsize": stride}
        )
        self._consumer_page = self._mapped(0, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_page = self._mapped(mmap.PAGESIZE, mmap.PAGESIZE)
        # Not numpy's: an idle agent does little else than compare these two.
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._producer_page).cast("Q")
        self._window, self._window_at = self._mapped_data(0), 0

    def _mapped(self, offset: int, length: int, protection: int = mmap.PROT_READ) -> mmap.mmap:
        try:
            return mmap.mmap(self._ring.descriptor, length, mmap.MAP_SHARED, protection, offset=offset)
        except OSError as error:
            raise refusal(error, f"mapping the ring buffer {self._ring.spec.name}", BPF) from error

    def _mapped_data(self, at: int) -> mmap.mmap:
        # Of the data's second copy a page is enough for the record that lies across the end.
        return self._mapped(2 * mmap.PAGESIZE + at, min(WINDOW_BYTES, self.size - at) + mmap.PAGESIZE)

    def fileno(self) -> int:
        """The descriptor that epoll finds readable when BPF submitted a record with a wake-up."""
        return self._ring.descriptor

    @property
    def fill(self) -> float:
        """The fraction of the ring that is taken, by unread and by reserved records: 0 to 1."""
        return (self._producer[0] - self._consumer[0]) / self.size

    def drain(self, limit: int = 16384) -> npt.NDArray[Any]:
        """The next records, oldest first, copied; their room in the ring is free again.

        Args:
            limit: how many at most.

        Returns:
            Shape (n,) of `dtype`; n is 0 when nothing more has been submitted.

        Raises:
            KernelError: a record of another size is in the ring.
        """
        end = self._producer[0]
        pieces: list[npt.NDArray[Any]] = []
        while limit and (count := min((end - self._consumer[0]) // self._entry.itemsize, limit)):
            passed, records = self._next(count)
            if not passed:
                break
            if len(records):
                pieces.append(records)
                limit -= len(records)
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros(0, self.dtype)

    def _next(self, limit: int) -> tuple[int, npt.NDArray[Any]]:
        """Take what has been submitted and lies in the window, moved there.

        Returns:
            How many entries were passed, and the records among them.
        """
        position = self._consumer[0]
        place = position & (self.size - 1)
        if not self._window_at <= place < self._window_at + len(self._window) - mmap.PAGESIZE:
            self._window.close()
            self._window_at = place & -mmap.PAGESIZE
            self._window = self._mapped_data(self._window_at)
        # Those that begin in it; the page behind it holds the rest of the last one.
        within = -(-(self._window_at + len(self._window) - mmap.PAGESIZE - place) // self._entry.itemsize)
        count = min(limit, within)
        entries = np.frombuffer(self._window, self._entry, count, place - self._window_at)
        # One snapshot of the live headers, never read again: what is BUSY at one look may not be at the next.
        lengths = entries["length"].copy()
        busy = np.flatnonzero(lengths & _BUSY)
        if busy.size:
            count = int(busy[0])
            lengths = lengths[:count]
        kept = (lengths & _DISCARD) == 0
        if ((lengths & ~_DISCARD) != self.dtype.itemsize).any():
            raise KernelError(
                f"ring buffer {self._ring.spec.name} holds a record that hasn't {self.dtype.itemsize} bytes"
            )
        records = entries["record"][:count]
        records = records.copy() if kept.all() else records[kept]
        self._consumer[0] = position + count * self._entry.itemsize
        self.discarded += count - len(records)
        return count, records

    def close(self) -> None:
        """Unmap the pages; the map stays."""
        self._consumer.release()
        self._producer.release()
        self._consumer_page.close()
        self._producer_page.close()
        self._window.close()
