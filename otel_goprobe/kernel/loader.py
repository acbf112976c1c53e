"""A compiled unit -> maps and programs in the kernel. The agent calls `load` once, then `attach` for each target.

The verifier takes about a microsecond for each instruction that it walks, 50 ms for a large program: so programs are
loaded in parallel (it locks nothing for those who may load programs), by the agent only when a plan names them, and
while the rest of it is imported.
"""

from __future__ import annotations

import os
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from otel_goprobe.errors import CompilerError, KernelError
from otel_goprobe.kernel import bundle, features, shared_maps, syscalls
from otel_goprobe.kernel.maps import Map

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    import numpy as np

    from otel_goprobe import model

AttachWay = Literal["uprobe_multi", "perf_event"]

_CALL = 0x85
_COPY_FROM_USER = 148
_PROBE_READ_USER = 112
"""``bpf_copy_from_user`` may fault a page in and so is for sleepable programs; this one has the same arguments."""

_PSEUDO_MAP_FD = 1

_KINDS: dict[model.ProgramKind, tuple[int, int]] = {
    "uprobe": (syscalls.PROG_KPROBE, 0),
    "raw_tracepoint": (syscalls.PROG_RAW_TRACEPOINT, 0),
    "sock_ops": (syscalls.PROG_SOCK_OPS, syscalls.ATTACH_CGROUP_SOCK_OPS),
    "sk_msg": (syscalls.PROG_SK_MSG, syscalls.ATTACH_SK_MSG_VERDICT),
}
"""Type of a program and its expected attach type."""


@dataclass(slots=True)
class Program:
    """A loaded unit."""

    unit: model.Unit
    maps: Mapping[str, Map]
    """By C name; those that were given to `load` are still the other program's."""
    attach_way: AttachWay
    sleepable: bool
    """Whether uprobe programs may fault pages of the target in; that they can't is known once one has been refused."""
    unshared: tuple[str, ...]
    """Maps that should be the host's and are this agent's own, for want of CAP_SYS_ADMIN."""
    _bytecode: dict[str, bundle.Bytecode]
    """Of the programs that haven't been loaded."""
    _structs: Mapping[str, bundle.StructLayout]
    _own_maps: tuple[Map, ...]
    descriptors: dict[str, int] = field(default_factory=dict)
    """Of the programs that have been loaded, by name."""
    _loading: dict[str, Future[int]] = field(default_factory=dict, repr=False)
    _closed: bool = field(default=False, repr=False)

    def prepare(self, names: Iterable[str]) -> None:
        """Begin to load those of these programs that aren't yet; `require` waits for them and says what is wrong."""
        wanted = set(names) - self.descriptors.keys() - self._loading.keys()
        entries = [entry for entry in self.unit.programs if entry.name in wanted]
        if not entries:
            return
        # The longest first, so that none is left alone at the end.
        entries.sort(key=lambda entry: len(self._bytecode[entry.name].instructions), reverse=True)
        pool = ThreadPoolExecutor(min(len(entries), len(os.sched_getaffinity(0))), "verifier")
        self._loading |= {entry.name: pool.submit(self._load_one, entry) for entry in entries}
        pool.shutdown(wait=False)

    def require(self, names: Iterable[str]) -> None:
        """Load those of these programs that aren't yet, all at once.

        Raises:
            NotPermittedError: for want of a capability.
            KernelError: the kernel refused one; none of them is loaded.
        """
        wanted = set(names)
        self.prepare(wanted)
        loads = {name: self._loading.pop(name) for name in wanted & self._loading.keys()}
        try:
            loaded = {name: load.result() for name, load in loads.items()}
        except KernelError:
            _close_loaded(loads.values())
            raise
        self.descriptors.update(loaded)
        for name in loaded:
            del self._bytecode[name]

    def _load_one(self, entry: model.UnitProgram) -> int:
        sleepable = entry.kind == "uprobe" and self.sleepable
        try:
            return self._load(entry, sleepable=sleepable)
        except syscalls.ProgramRejectedError as refusal:
            if not sleepable:
                raise
            try:
                descriptor = self._load(entry, sleepable=False)
            except syscalls.ProgramRejectedError as error:
                raise error from refusal  # that wasn't the reason
            self.sleepable = False  # kernels before 6.0 refuse
            return descriptor

    def _load(self, entry: model.UnitProgram, *, sleepable: bool) -> int:
        kind, attach_type = _KINDS[entry.kind]
        if entry.kind == "uprobe" and self.attach_way == "uprobe_multi":
            attach_type = syscalls.ATTACH_UPROBE_MULTI
        return syscalls.prog_load(
            _patched(self._bytecode[entry.name], self.maps, may_sleep=sleepable),
            kind,
            name=entry.name,
            attach_type=attach_type,
            flags=syscalls.PROG_SLEEPABLE if sleepable else 0,
        )

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
        _close_loaded(self._loading.values())
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        for owned in self._own_maps:
            owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    unit: model.Unit,
    *,
    cache_dir: Path,
    sizes: Mapping[str, int] = MappingProxyType({}),
    shared: Collection[str] = (),
    maps: Mapping[str, Map] = MappingProxyType({}),
    way: AttachWay | None = None,
    lazily: bool = False,
) -> Program:
    """Obtain `unit` compiled, make its maps and load its programs.

    Args:
        unit: what to load.
        cache_dir: where compiled bundles are kept.
        sizes: map name -> number of elements, or bytes of a ring buffer (a power of two, whole pages).
        shared: names of maps that all agents of this host use together, see `shared_maps`; their sizes can't be chosen.
        maps: maps of another program, used instead of new ones of the same name.
        way: how uprobes are to be attached; None for the best that this kernel has.
        lazily: load no program before `Program.require` names it, as attaching does; one that writes never is else.

    Raises:
        CompilerError: see `bundle.obtain`.
        NotPermittedError: for want of a capability.
        KernelError: the kernel refused a map or a program.
        ValueError: `sizes` names a map that isn't there.
    """
    compiled = bundle.obtain(unit, cache_dir).bundle
    unknown = set(sizes) - {spec.name for spec in compiled.maps}
    if unknown:
        raise ValueError(f"unit {unit.name} has no map {', '.join(sorted(unknown))}")
    own: list[Map] = []
    unshared = []
    try:
        for spec in compiled.maps:
            if spec.name not in maps:
                if spec.name in shared:
                    found, common = shared_maps.find_or_create(spec)
                    own.append(found)
                    unshared += [] if common else [spec.name]
                    continue
                sized = msgspec.structs.replace(spec, max_entries=sizes.get(spec.name, spec.max_entries))
                own.append(Map.create(sized))
        used = {spec.name: maps[spec.name] for spec in compiled.maps if spec.name in maps}
        used |= {owned.spec.name: owned for owned in own}
        program = Program(
            unit=unit,
            maps=used,
            attach_way=way or ("uprobe_multi" if features.has_uprobe_multi() else "perf_event"),
            sleepable=True,
            unshared=tuple(unshared),
            _bytecode={code.name: code for code in compiled.programs},
            _structs={layout.name: layout for layout in compiled.structs},
            _own_maps=tuple(own),
        )
        if not lazily:
            program.require(entry.name for entry in unit.programs if not entry.writes)
    except BaseException:
        for owned in own:
            owned.close()
        raise
    return program


def _close_loaded(loads: Iterable[Future[int]]) -> None:
    for load in loads:
        if load.exception() is None:
            os.close(load.result())


def _patched(program: bundle.Bytecode, maps: Mapping[str, Map], *, may_sleep: bool) -> bytes:
    """The instructions with this process's map descriptors in them."""
    code = bytearray(program.instructions)
    for relocation in program.relocations:
        at = 8 * relocation.instruction
        code[at + 1] = code[at + 1] & 0x0F | _PSEUDO_MAP_FD << 4
        struct.pack_into("<i", code, at + 4, maps[relocation.map].descriptor)
    if not may_sleep:
        for at in range(0, len(code), 8):
            if code[at] == _CALL and struct.unpack_from("<Bhi", code, at + 1) == (0, 0, _COPY_FROM_USER):
                struct.pack_into("<i", code, at + 4, _PROBE_READ_USER)
    return bytes(code)
