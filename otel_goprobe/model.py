"""The frozen values that the arrows of the design carry, from a process in sight to columns of spans.

    discovery -> Target;  gobinary + probes -> Plan;  kernel -> RecordBatch;  spans -> SpanColumns;  export -> bytes

They hold data and derive nothing that needs a file, a process or the kernel.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

AttributeValue = str | bool | int | float | Sequence[str]
"""What an OTLP attribute may hold here."""


# --- a Go executable -------------------------------------------------------------------------------------------------


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


# --- what to attach --------------------------------------------------------------------------------------------------


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


# --- a process -------------------------------------------------------------------------------------------------------


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


# --- records and spans -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one kind and one size class, as one drain of a ring gave them."""

    struct: str
    """Name of the C struct: ``http_server_record_256``."""
    records: npt.NDArray[np.void]
    """Shape (n,), the dtype that the compiled struct has."""


@dataclass(frozen=True, slots=True)
class Strings:
    """A column of strings, each distinct one stored once."""

    codes: npt.NDArray[np.int32]
    """Shape (n,): index into `table`, or -1 where the span has no value."""
    table: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StringLists:
    """The same of lists of strings."""

    codes: npt.NDArray[np.int32]
    table: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Integers:
    """A column of signed integers."""

    values: npt.NDArray[np.int64]
    """Shape (n,)."""
    present: npt.NDArray[np.bool_]
    """Shape (n,): False where the span has no value."""


@dataclass(frozen=True, slots=True)
class Booleans:
    """A column of truth values."""

    values: npt.NDArray[np.bool_]
    """Shape (n,)."""
    present: npt.NDArray[np.bool_]
    """Shape (n,): False where the span has no value."""


Column = Strings | StringLists | Integers | Booleans


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A span that a histogram's point counts."""

    unix_ns: int
    """Its end."""
    value_s: float
    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True)
class HistogramPoint:
    """A histogram of durations of one target and one combination of attributes."""

    resource: Mapping[str, AttributeValue]
    attributes: Mapping[str, AttributeValue]
    start_unix_ns: int
    """What came since then is counted."""
    counts: tuple[int, ...]
    """One for each of `Metric.bounds`, and one for what is above; exponential: one for each bucket from `offset` on."""
    sum_s: float
    exemplars: tuple[Exemplar, ...] = ()
    scale: int | None = None
    """OTLP's, of an exponential histogram; else None."""
    offset: int = 0
    """OTLP's index of the first of `counts`, of an exponential histogram."""


@dataclass(frozen=True, slots=True)
class SumPoint:
    """How many of something there are."""

    resource: Mapping[str, AttributeValue]
    attributes: Mapping[str, AttributeValue]
    start_unix_ns: int
    value: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of all targets: histograms, or sums."""

    scope: str
    name: str
    unit: str
    description: str
    points: tuple[HistogramPoint | SumPoint, ...]
    bounds: tuple[float, ...] = ()
    """Inclusive upper bounds, ascending."""
    delta: bool = False
    """`HistogramPoint.start_unix_ns` is when the last export was made."""
    monotonic: bool = False
    """Of sums: they never fall."""


class SpanKind(enum.IntEnum):
    """OTLP's ``Span.SpanKind``."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


@dataclass(frozen=True, slots=True)
class Links:
    """Spans that others are linked to: OTLP's ``Span.links``, without attributes."""

    counts: npt.NDArray[np.intp]
    """Shape (n,): how many each of n spans has."""
    trace_id: npt.NDArray[np.uint8]
    """Shape (m, 16), m the sum of `counts`: those of the first span, of the second and so on."""
    span_id: npt.NDArray[np.uint8]
    """Shape (m, 8)."""
    trace_flags: npt.NDArray[np.uint8]
    """Shape (m,): W3C's, of the spans linked to."""


@dataclass(frozen=True, slots=True)
class Occurrences:
    """What differs in each of several spans of one scope; every array has n rows."""

    slot: npt.NDArray[np.uint16]
    """Which target; the exporter maps it to a resource."""
    trace_id: npt.NDArray[np.uint8]
    """Shape (n, 16)."""
    span_id: npt.NDArray[np.uint8]
    """Shape (n, 8)."""
    parent_span_id: npt.NDArray[np.uint8]
    """Shape (n, 8); all zero for a root."""
    start_unix_ns: npt.NDArray[np.uint64]
    end_unix_ns: npt.NDArray[np.uint64]
    links: Links | None = None
    """None where no span has any."""

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True, slots=True)
class SpanColumns:
    """Spans of one instrumentation scope and kind, a column each; every array has n rows."""

    scope: str
    """``otel-goprobe/<import path>``."""
    kind: SpanKind
    slot: npt.NDArray[np.uint16]
    """Which target; the exporter maps it to a resource."""
    trace_id: npt.NDArray[np.uint8]
    """Shape (n, 16)."""
    span_id: npt.NDArray[np.uint8]
    """Shape (n, 8)."""
    parent_span_id: npt.NDArray[np.uint8]
    """Shape (n, 8); all zero for a root."""
    trace_flags: npt.NDArray[np.uint8]
    """W3C's: 1 sampled, 2 random trace id."""
    trace_state: Strings
    """W3C's tracestate, as the parent sent it."""
    start_unix_ns: npt.NDArray[np.uint64]
    end_unix_ns: npt.NDArray[np.uint64]
    name: Strings
    """No -1 in its codes."""
    error: npt.NDArray[np.bool_]
    """Status ERROR, else UNSET."""
    attributes: Mapping[str, Column]
    links: Links | None = None
    """None where no span has any."""

    def __len__(self) -> int:
        return len(self.slot)


# --- what tools see --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnSpan:
    """That an event is told of by a span of its own, too: a child of the event's, with its attributes and its start."""

    name: str
    kind: SpanKind
    end_unix_ns: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a target: an event of the span that was active, else a log record."""

    slot: int
    unix_ns: int
    name: str
    """Of the event, such as ``file.open``."""
    body: str
    """A sentence for people."""
    attributes: Mapping[str, AttributeValue]
    trace_id: bytes = b""
    """16 bytes; empty, as `span_id` (8 bytes) is, where no span was active."""
    span_id: bytes = b""
    sampled: bool = False
    """Whether that span is to be exported, so that it can carry the event."""
    warning: bool = False
    """Always a log record, of severity WARN."""
    span: OwnSpan | None = None
