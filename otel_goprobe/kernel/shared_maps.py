"""A map that all agents of a host use together: found by its name among the kernel's, else made; `loader` calls it.

Nothing is pinned: the map lives as long as one agent holds it. Two agents that start at once agree without a lock:
numbers of maps only grow, so whoever has made one and then looks again sees every map made before, and takes the
oldest.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from otel_goprobe.kernel import syscalls
from otel_goprobe.kernel.maps import Map

if TYPE_CHECKING:
    from otel_goprobe.kernel.bundle import MapSpec


def find_or_create(spec: MapSpec) -> tuple[Map, bool]:
    """The host's map of this name, type, sizes and flags.

    Returns:
        The map, and whether other agents can use it: False without CAP_SYS_ADMIN, which it takes to look for maps.

    Raises:
        KernelError: it can't be made.
    """
    try:
        oldest = _oldest(spec)
    except PermissionError:
        return Map.create(spec), False
    if oldest is not None:
        return oldest, True
    made = Map.create(spec)
    try:
        oldest = _oldest(spec)
    except BaseException:
        made.close()
        raise
    if oldest is None:
        return made, True
    made.close()
    return oldest, True


def _oldest(spec: MapSpec) -> Map | None:
    number = 0
    while (following := syscalls.map_next_id(number)) is not None:
        number = following
        descriptor = syscalls.map_by_id(number)
        if descriptor is None:
            continue
        if _fits(spec, descriptor):
            return Map(spec, descriptor)
        os.close(descriptor)
    return None


def _fits(spec: MapSpec, descriptor: int) -> bool:
    found = struct.unpack_from("<6I16s", syscalls.map_information(descriptor))
    kind, _, *sizes, name = found
    wanted = [spec.key_size, spec.value_size, spec.max_entries, spec.flags]
    return kind == spec.type and sizes == wanted and name.rstrip(b"\0") == syscalls.object_name(spec.name)
