"""Executables, what is attached to them, and processes."""

from __future__ import annotations

import enum
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from otel_goprobe.model.spans import AttributeValue


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module as the build info names it."""

    path: str
    version: str
    """``(devel)`` for one built from its own tree; a replaced module carries its replacement's version."""


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What ``go version -m`` prints."""

    go_version: str
    """Such as ``go1.26.8``; a devel toolchain's longer string is kept whole."""
    path: str
    """Import path of the main package; ``command-line-arguments`` for ``go build file.go``."""
    main: Module | None
    dependencies: tuple[Module, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """The ``build`` lines: ``-ldflags``, ``CGO_ENABLED``, ``GOARCH``, ``DefaultGODEBUG``, ``-pgo``, and so on."""


class Cost(enum.StrEnum):
    """What the kernel does with the instruction under a uprobe; decides what a hit costs the target."""

    EMULATED = "emulated"
    STEPPED = "single-stepped"


@dataclass(frozen=True, slots=True)
class Site:
    """One instruction that can carry a uprobe."""

    function: str
    """In Go's own spelling: ``net/http.(*response).finishRequest``."""
    address: int
    """Virtual address in the file, before any load bias."""
    file_offset: int
    """What the kernel wants; from the PT_LOAD that holds `address`."""
    expected: bytes
    """The instruction's bytes in the analysed file; compared with the running file before attaching."""
    cost: Cost
    reason: str
    """Why here, in a few words: ``push %rbp behind the stack check``."""


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """One BPF program and the sites that run it."""

    program: str
    """Name of the C function."""
    library: str
    """What is instrumented, such as ``net/http`` or ``net/http client``."""
    sites: tuple[Site, ...]
    option: str = ""
    """Attached only where the run has this option."""
    unless: str = ""
    """Not attached where the run has this option."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that will not be instrumented, and why."""

    what: str
    reason: str
    option: str = ""
    """The option of a run that would need it; empty: every run does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be attached to one executable. `probes` is in attach order: ends before starts."""

    probes: tuple[ProbePlan, ...]
    values: Mapping[str, int]
    """Member of the C ``struct target`` -> struct field offset, or address before load bias."""
    skipped: tuple[Skipped, ...] = ()


ProgramKind = Literal["uprobe", "raw_tracepoint", "sock_ops", "sk_msg"]
"""What a BPF program runs on; the last two: events of a cgroup's sockets, what the sockets of a sockhash send."""


@dataclass(frozen=True, slots=True)
class UnitProgram:
    """One BPF program of a unit."""

    name: str
    """Name of the C function."""
    kind: ProgramKind = "uprobe"
    event: str = ""
    """The raw tracepoint's name, such as ``sched_process_exec``."""
    writes: bool = False
    """Into the memory of processes: loaded only where it is named, since not every kernel allows that."""
    required: bool = True
    """False: a kernel without `event` runs the unit without this program."""


@dataclass(frozen=True, slots=True)
class Unit:
    """C sources that are compiled together."""

    name: str
    header: str
    """Generated C (ids, limits, ``struct target``), compiled before `sources`."""
    sources: tuple[Path, ...]
    programs: tuple[UnitProgram, ...]
    structs: tuple[str, ...]
    """Names of C structs whose layout the agent needs as a numpy dtype."""


@dataclass(frozen=True, slots=True)
class GoProcess:
    """A running Go program; `pid`, `start_ticks`, `device` and `inode` together never name another one."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat, in clock ticks since boot."""
    exe: str
    """Where /proc/PID/exe points, as its own mount namespace names it, without `` (deleted)``."""
    device: int
    inode: int
    build: BuildInfo
    stripped: bool
    """No ``.symtab``."""
    ports: tuple[int, ...] = ()
    """TCP ports it listens on, ascending."""
    unsupported: str = ""
    """Why it can't be instrumented; empty where it can."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Its ``OTEL_*`` variables."""
    build_id: str = ""
    """Go's, else GNU's in hexadecimal, else empty."""
    stack_addr: int = 0
    """Where its first stack begins (field 28 of /proc/PID/stat): another after each exec; 0 where that is hidden."""

    @property
    def exe_path(self) -> str:
        """A path that opens the executable itself, deleted, replaced or in another mount namespace."""
        return f"/proc/{self.pid}/exe"


@dataclass(frozen=True, slots=True)
class Target:
    """A Go process that is to be instrumented."""

    process: GoProcess
    service: str
    named: bool
    """Whether the user named this very process (--pid, or the command after ``--``)."""
    resource: Mapping[str, AttributeValue]
    """Resource attributes, ``service.name`` among them."""

    @property
    def pid(self) -> int:
        """The process id in the agent's own PID namespace."""
        return self.process.pid
