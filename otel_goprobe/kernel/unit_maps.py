"""The maps of a unit -> the kernel's, each made when it is first asked for; `loader` makes one `UnitMaps` a unit.

A map of 16,384 elements takes the kernel up to 4 ms and 15 MB, and a unit has those of every library: what no program
that is loaded uses is never made.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from otel_goprobe.kernel import shared_maps
from otel_goprobe.kernel.maps import Map

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from otel_goprobe.kernel.bundle import MapSpec


class UnitMaps(Mapping[str, Map]):
    """Maps by C name; to look one up makes it, from any thread.

    Args:
        specs: all maps of the unit.
        sizes: map name -> number of elements, or bytes of a ring buffer.
        shared: names of maps that all agents of this host use together.
        given: maps of another program, used instead of new ones of the same name.

    Looking up raises:
        KeyError: the unit has no such map.
        KernelError: the kernel refused it.
    """

    def __init__(
        self,
        specs: Iterable[MapSpec],
        *,
        sizes: Mapping[str, int] = MappingProxyType({}),
        shared: Collection[str] = (),
        given: Mapping[str, Map] = MappingProxyType({}),
    ) -> None:
        self._specs = {
            spec.name: msgspec.structs.replace(spec, max_entries=sizes.get(spec.name, spec.max_entries))
            for spec in specs
        }
        self._shared = frozenset(shared)
        self._given = given
        self._own: dict[str, Map] = {}
        self._lock = threading.Lock()
        self.unshared: list[str] = []
        """Maps that should be the host's and are this agent's own, for want of CAP_SYS_ADMIN."""

    def __getitem__(self, name: str) -> Map:
        spec = self._specs[name]
        if name in self._given:
            return self._given[name]
        with self._lock:
            if name not in self._own:
                self._own[name] = self._make(spec)
            return self._own[name]

    def _make(self, spec: MapSpec) -> Map:
        if spec.name not in self._shared:
            return Map.create(spec)
        found, common = shared_maps.find_or_create(spec)
        if not common:
            self.unshared.append(spec.name)
        return found

    def made(self, name: str) -> Map | None:
        """Return a map if anybody has asked for it."""
        return self[name] if name in self._own or self._is_made_by_giver(name) else None

    def _is_made_by_giver(self, name: str) -> bool:
        given = self._given
        return name in given and (not isinstance(given, UnitMaps) or given.made(name) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def close(self) -> None:
        """Let go of those that were made here."""
        for own in self._own.values():
            own.close()
