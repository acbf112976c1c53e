"""A compiled unit -> maps and programs in the kernel. The agent calls `load` once, then `attach` for each target.

What compiles and describes a unit takes imports that a start doesn't wait for: `begin` has the kernel verify programs
of the bundle that is at hand, `load` takes it over if the sources turn out to be those of the bundle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from otel_goprobe.errors import CompilerError
from otel_goprobe.kernel import bundle, links, syscalls
from otel_goprobe.kernel.unit_maps import UnitMaps
from otel_goprobe.kernel.verifier import AttachWay, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    import numpy as np

    from otel_goprobe import model
    from otel_goprobe.kernel.maps import Map

__all__ = ["AttachWay", "Begun", "Program", "begin", "load"]


@dataclass(slots=True)
class Program:
    """A loaded unit."""

    unit: model.Unit
    maps: UnitMaps
    """By C name; those that were given to `load` are still the other program's."""
    attach_way: AttachWay
    verifier: Verifier
    _structs: Mapping[str, bundle.StructLayout]
    descriptors: dict[str, int] = field(default_factory=dict)
    """Of the programs that have been loaded, by name."""
    _closed: bool = field(default=False, repr=False)

    @property
    def sleepable(self) -> bool:
        """Whether uprobe programs may fault pages of the target in; see `Verifier`."""
        return self.verifier.sleepable

    @property
    def unshared(self) -> tuple[str, ...]:
        """Maps that should be the host's and are this agent's own, for want of CAP_SYS_ADMIN."""
        return tuple(self.maps.unshared)

    def prepare(self, names: Iterable[str]) -> None:
        """Begin to load those of these programs that aren't yet; `require` waits for them and says what is wrong."""
        wanted = set(names)
        self.verifier.begin({entry.name: entry.kind for entry in self.unit.programs if entry.name in wanted})

    def require(self, names: Iterable[str]) -> None:
        """Load those of these programs that aren't yet, all at once.

        Raises:
            NotPermittedError: for want of a capability.
            KernelError: the kernel refused one, or a map that it uses; none of them is loaded.
        """
        wanted = set(names)
        self.prepare(wanted)
        self.descriptors.update(self.verifier.take(wanted))

    @property
    def verified_instructions(self) -> Mapping[str, int]:
        """Name of a loaded program -> how many instructions the verifier walked; 0 where the kernel doesn't tell."""
        return {name: syscalls.verified_instructions(fd) for name, fd in self.descriptors.items()}

    def dtype(self, struct_name: str) -> np.dtype[np.void]:
        """The numpy dtype of one of the unit's structs, as clang laid it out.

        Raises:
            CompilerError: the unit doesn't name this struct.
        """
        try:
            return self._structs[struct_name].dtype()
        except KeyError:
            raise CompilerError(f"unit {self.unit.name} gives no layout of struct {struct_name}") from None

    def close(self) -> None:
        """Let go of programs and own maps; links that are still open keep theirs."""
        if self._closed:
            return
        self._closed = True
        self.verifier.close()
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.maps.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Begun:
    """Programs of a bundle that are being verified before anybody knows whether its unit's sources gave it."""

    kept: bundle.Kept
    maps: UnitMaps
    attach_way: AttachWay
    verifier: Verifier

    def close(self) -> None:
        """Let go of them; idempotent, and nothing happens behind the `close` of the program that took them over."""
        self.verifier.close()
        self.maps.close()


def begin(
    kept: bundle.Kept, programs: Collection[str], *, sizes: Mapping[str, int], shared: Collection[str] = ()
) -> Begun:
    """Begin to load programs of a bundle that is at hand, for `load`.

    Args:
        kept: as `bundle.kept` gives it.
        programs: what to begin with, by name; uprobes.
        sizes: as `load` has it, and to be the same there.
        shared: likewise.

    Raises:
        NotPermittedError: for want of a capability.
    """
    way: AttachWay = "uprobe_multi" if links.has_uprobe_multi() else "perf_event"
    maps = UnitMaps(kept.bundle.maps, sizes=sizes, shared=shared)
    begun = Begun(kept, maps, way, Verifier(kept.bundle.programs, maps, way))
    kinds: dict[str, model.ProgramKind] = dict.fromkeys(programs, "uprobe")
    begun.verifier.begin(kinds)
    return begun


def load(
    unit: model.Unit,
    *,
    cache_dir: Path,
    sizes: Mapping[str, int] | Callable[[Collection[str]], Mapping[str, int]] = MappingProxyType({}),
    shared: Collection[str] = (),
    maps: Mapping[str, Map] = MappingProxyType({}),
    way: AttachWay | None = None,
    lazily: bool = False,
    begun: Begun | None = None,
) -> Program:
    """Obtain `unit` compiled, make its maps and load its programs.

    Args:
        unit: what to load.
        cache_dir: where compiled bundles are kept.
        sizes: map name -> number of elements, or bytes of a ring buffer (a power of two, whole pages); or
            what gives that when it is called with the names of all maps.
        shared: names of maps that all agents of this host use together, see `shared_maps`; their sizes can't be chosen.
        maps: maps of another program, used instead of new ones of the same name.
        way: how uprobes are to be attached; None for the best that this kernel has.
        lazily: load no program before `Program.require` names it, as attaching does, and make no map before a program
            or somebody else wants it; a program that writes never is loaded else.
        begun: taken over if it is of this unit's sources, closed if not; `maps` and `way` can't be chosen then.

    Raises:
        CompilerError: see `bundle.obtain`.
        NotPermittedError: for want of a capability.
        KernelError: the kernel refused a map or a program.
        ValueError: `sizes` names a map that isn't there.
    """
    if begun is not None and begun.kept.sources != bundle.sources_digest(unit):
        begun.close()
        begun = None
    compiled = begun.kept.bundle if begun else bundle.obtain(unit, cache_dir).bundle
    names = {spec.name for spec in compiled.maps}
    sizes = sizes(names) if callable(sizes) else sizes
    unknown = set(sizes) - names
    if unknown:
        raise ValueError(f"unit {unit.name} has no map {', '.join(sorted(unknown))}")
    if begun is None:
        way = way or ("uprobe_multi" if links.has_uprobe_multi() else "perf_event")
        unit_maps = UnitMaps(compiled.maps, sizes=sizes, shared=shared, given=maps)
        begun = Begun(bundle.Kept("", compiled), unit_maps, way, Verifier(compiled.programs, unit_maps, way))
    program = Program(
        unit=unit,
        maps=begun.maps,
        attach_way=begun.attach_way,
        verifier=begun.verifier,
        _structs={layout.name: layout for layout in compiled.structs},
    )
    try:
        for name in shared:
            _ = program.maps[name]  # so that `unshared` tells from now on
        if not lazily:
            for name in program.maps:
                _ = program.maps[name]
            program.require(entry.name for entry in unit.programs if not entry.writes)
    except BaseException:
        program.close()
        raise
    return program
