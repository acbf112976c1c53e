"""A BPF map by its descriptor: bytes in, bytes out; per-CPU arrays summed by numpy. `loader` makes them."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe.kernel import syscalls

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.kernel.bundle import MapSpec

ANY = 0
"""BPF_ANY: make the element or replace it."""
NO_EXIST = 1
"""BPF_NOEXIST: only a new one."""
EXIST = 2
"""BPF_EXIST: only an existing one."""


def u32(value: int) -> bytes:
    """A key or a value of four bytes."""
    return value.to_bytes(4, sys.byteorder)


@functools.cache
def possible_cpus() -> int:
    """How many CPUs a per-CPU map has values for."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return 1 + int(text.replace("-", ",").rsplit(",", 1)[-1])


@dataclass(slots=True)
class Map:
    """One map; several programs can share it.

    Every method raises KernelError, or one of its kinds, where the kernel refuses.
    """

    spec: MapSpec
    """As created: sizes given to the loader stand in it."""
    descriptor: int
    _closed: bool = field(default=False, repr=False)

    @classmethod
    def create(cls, spec: MapSpec) -> Map:
        """A new map of the kernel."""
        return cls(
            spec,
            syscalls.map_create(
                spec.type, spec.key_size, spec.value_size, spec.max_entries, flags=spec.flags, name=spec.name
            ),
        )

    @property
    def value_bytes(self) -> int:
        """Bytes of one lookup: of all CPUs, each rounded up to 8, in a per-CPU map."""
        if self.spec.type in (syscalls.MAP_PERCPU_ARRAY, syscalls.MAP_PERCPU_HASH):
            return (self.spec.value_size + 7) // 8 * 8 * possible_cpus()
        return self.spec.value_size

    def lookup(self, key: bytes) -> bytes | None:
        """The value (`value_bytes` long), or None where there is no such key."""
        return syscalls.map_lookup(self.descriptor, self._checked(key), self.value_bytes)

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Write one element."""
        if len(value) != self.value_bytes:
            raise ValueError(f"map {self.spec.name} takes values of {self.value_bytes} bytes, not {len(value)}")
        syscalls.map_update(self.descriptor, self._checked(key), value, flags)

    def delete(self, key: bytes) -> bool:
        """Delete one element of a hash; whether there was one."""
        return syscalls.map_delete(self.descriptor, self._checked(key))

    def keys(self) -> list[bytes]:
        """Every key of a moment, in one system call; a walk key by key would begin anew where one is deleted."""
        size = self.spec.key_size
        keys, _ = self.items()
        return [keys[at : at + size] for at in range(0, len(keys), size)]

    def items(self) -> tuple[bytes, bytes]:
        """Every key of a hash at a moment and its value, each one behind the other, in one system call."""
        return syscalls.map_lookup_batch(self.descriptor, self.spec.key_size, self.value_bytes, self.spec.max_entries)

    def sums(self, first: int = 0, count: int | None = None) -> npt.NDArray[np.uint64]:
        """Rows of a per-CPU array of one or more ``u64``, added up over the CPUs, in one system call.

        Args:
            first: the first row.
            count: how many rows; None for all behind `first`.

        Returns:
            Shape (count * ``u64`` a row,): one row behind the other.
        """
        import numpy as np  # noqa: PLC0415 - a start doesn't wait for it before the verifier works

        if self.spec.type != syscalls.MAP_PERCPU_ARRAY or self.spec.value_size % 8:
            raise ValueError(f"map {self.spec.name} is no per-CPU array of u64")
        rows = self.spec.max_entries - first if count is None else count
        if rows <= 0:
            return np.zeros(0, np.uint64)
        before = (first - 1).to_bytes(4, "little") if first else None
        _, values = syscalls.map_lookup_batch(self.descriptor, 4, self.value_bytes, rows, before=before)
        sums: npt.NDArray[np.uint64] = (
            np.frombuffer(values, "<u8").reshape(-1, possible_cpus(), self.spec.value_size // 8).sum(axis=1).ravel()
        )
        return sums

    def close(self) -> None:
        """Let go of the map; the kernel frees it when no program holds it either."""
        if not self._closed:
            self._closed = True
            os.close(self.descriptor)

    def _checked(self, key: bytes) -> bytes:
        if len(key) != self.spec.key_size:
            raise ValueError(f"map {self.spec.name} takes keys of {self.spec.key_size} bytes, not {len(key)}")
        return key
