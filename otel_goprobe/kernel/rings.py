"""A BPF ring buffer of one record size -> arrays of records, read through shared memory without a system call.

The agent looks at `Ring.fill` every 10 to 200 ms and calls `Ring.drain` when it is worth that (pace.py). Layout of the
mapped pages: kernel/bpf/ringbuf.c (page 0 consumer position, page 1 producer position, then the data twice in a row, so
that a record never is split).
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
        page = mmap.PAGESIZE
        try:
            self._consumer_page = mmap.mmap(ring.descriptor, page, mmap.MAP_SHARED)
            # Of the data's second copy a page is enough for the record that lies across the end.
            self._producer_pages = mmap.mmap(
                ring.descriptor, page + self.size + page, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
            )
        except OSError as error:
            raise refusal(error, f"mapping the ring buffer {ring.spec.name}", BPF) from error
        # Not numpy's: an idle agent does little else than compare these two.
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = memoryview(self._producer_pages).cast("Q")
        self._data = np.frombuffer(self._producer_pages, "u1", offset=page)

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
        records = self._up_to_the_end(limit)
        if (self._consumer[0] & (self.size - 1)) >= self._entry.itemsize or len(records) == limit:
            return records
        return np.concatenate([records, self._up_to_the_end(limit - len(records))])

    def _up_to_the_end(self, limit: int) -> npt.NDArray[Any]:
        """Return the next records, the last of them at most that which lies across the end of the ring."""
        while True:
            position = self._consumer[0]
            place = position & (self.size - 1)
            up_to_the_end = -(-(self.size - place) // self._entry.itemsize)
            count = min((self._producer[0] - position) // self._entry.itemsize, limit, up_to_the_end)
            entries = np.frombuffer(self._data, self._entry, count, place) if count > 0 else None
            if entries is None:
                return np.zeros(0, self.dtype)
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
            if len(records) or not count:
                return records

    def close(self) -> None:
        """Unmap the pages; the map stays."""
        self._consumer.release()
        self._producer.release()
        del self._data
        self._consumer_page.close()
        self._producer_pages.close()
