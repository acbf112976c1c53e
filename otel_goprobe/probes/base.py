"""What a library's declaration is made of.

Roles, in the order in which a reader meets them:

- `Library`: one instrumented Go package. Its module holds nothing but this value and the functions that turn its
  records into columns; its C source has the same stem under ``bpf/probes/``.
- `Hook`: one BPF program and where it runs. `ends` are attached before `starts`, and no start without its ends.
- `Way`: a program at a place; places.py has the places.
- `Field`, `Itab`, `Type`, `StructPresent`, `Variable`, `ReadOnly`, `Block`: what C must know of the executable; each a
  member of ``struct target``.

registry.py turns all declarations into the C unit, selection.py those and an executable into a plan.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.gobinary import GoBinary
    from otel_goprobe.model import AttributeValue, SpanColumns, SpanKind
    from otel_goprobe.probes.places import Place
    from otel_goprobe.spans import Clock


TEXT_OTHER = 2**64 - 1
"""RED_TEXT_OTHER of bpf/include/red.h."""

BLOCK_BYTES = 208
"""GO_BLOCK_BYTES of bpf/include/go.h."""
_WORD_BYTES = 8


class Role(enum.IntEnum):
    """What a hook does for a span; also the order of attaching."""

    END = 0
    DETAIL = 1
    """Adds to a span that has started; does without where it can't be placed."""
    START = 2


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a hook: a program at a place."""

    program: str
    place: Place


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing to learn of the target, by the first of `ways` that this executable allows."""

    role: Role
    ways: tuple[Way, ...]
    lost: str
    """What a user misses where a DETAIL hook can't be placed."""
    address: str = ""
    """Member of ``struct target`` that gets the site's address before load bias, from which C computes the bias."""
    wanted: Callable[[GoBinary], bool] = lambda _: True
    """False where the executable has no use for it, which is not worth a word."""
    option: str = ""
    """Attached only where the run has this option."""
    unless: str = ""
    """Not attached where the run has this option."""
    writes: bool = False
    """Its programs write into the target's memory, which not every kernel loads; only with an option."""


@dataclass(frozen=True, slots=True)
class Field:
    """Offset of a struct field, for C a ``u16``."""

    member: str
    struct: str
    field: str
    required: bool = False
    """Without it nothing of the library is instrumented."""
    lost: str = ""
    """What a user misses without it; empty where another field stands in for it."""
    instead: tuple[str, ...] = ()
    """Structs that other versions have in its place; the first is taken that has the field."""

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return f"{' or '.join((self.struct, *self.instead))}.{self.field}"


@dataclass(frozen=True, slots=True)
class Itab:
    """Address of an itab before load bias, for C a ``u64``."""

    member: str
    concrete: str
    interface: str
    required: bool = True
    """Without it nothing of the library is instrumented; else it is 0."""

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return f"itab of {self.concrete} for {self.interface}"


@dataclass(frozen=True, slots=True)
class Type:
    """Address of what describes a named type, or a pointer to one, before load bias, for C a ``u64``; 0 if unknown."""

    member: str
    name: str
    lost: str = ""
    """What a user misses without it."""

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return f"type {self.name}"


@dataclass(frozen=True, slots=True)
class StructPresent:
    """Whether a struct is in the executable, a ``u16``, 0 or 1: a changed shape is told by presence, not by version."""

    member: str
    struct: str

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return f"whether there is a {self.struct}"


@dataclass(frozen=True, slots=True)
class Variable:
    """Address of a variable before load bias, for C a ``u64``; 0 where it isn't known."""

    member: str
    name: str
    lost: str
    """What a user misses without it."""

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return f"address of {self.name}"


@dataclass(frozen=True, slots=True)
class Block:
    """Offset of `BLOCK_BYTES` bytes of a struct that hold all of `fields`, for C a ``u16``; none if they don't fit."""

    member: str
    struct: str
    fields: tuple[str, ...]
    """Each of two words at most."""

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return f"{self.struct}.{{{', '.join(self.fields)}}} in {BLOCK_BYTES} bytes"

    def start(self, offsets: Sequence[int]) -> int | None:
        """Return where the block begins, given the fields' offsets; None where one block doesn't hold them all.

        As far to the front as can be: what is behind the struct may be another page.
        """
        end = max(offsets) + 2 * _WORD_BYTES
        start = max(end - BLOCK_BYTES, 0)
        return start if min(offsets) >= start and not any(offset % _WORD_BYTES for offset in offsets) else None


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Address before load bias behind what of the executable is never written to, for C a ``u64``; 0 if unknown."""

    member: str

    @property
    def of(self) -> str:
        """What is asked of the executable, in words."""
        return "end of what is read-only"


Fact = Field | Itab | Type | StructPresent | Variable | ReadOnly | Block


class Conversion(Protocol):
    """What a library's `columns` may ask for."""

    clock: Clock
    options: frozenset[str]
    names: Mapping[str, tuple[str, ...]]
    """Of the flags that take names (otel_goprobe/library_flags.py)."""

    def type_name(self, slot: int, address: int) -> str:
        """Return the name of the Go type at a file address of a target's executable, or ``_OTHER``."""


def no_columns(records: npt.NDArray[np.void], conversion: Conversion) -> SpanColumns:
    """Stand for the columns of a library that has no records, so that nobody ever asks for them."""
    raise NotImplementedError(records, conversion)


@dataclass(frozen=True, slots=True)
class Active:
    """How many of a library's spans are running, by its map ``<stem>_inflight`` of ``struct <stem>_in_flight``."""

    name: str
    unit: str
    """UCUM: ``{request}``."""
    description: str
    attributes: Callable[[npt.NDArray[np.void]], list[dict[str, AttributeValue]]]
    """What each ``struct <stem>_in_flight`` says."""


@dataclass(frozen=True, slots=True)
class Duration:
    """The histogram of a library's spans, in seconds, made in the kernel (bpf/include/red.h)."""

    name: str
    """Libraries whose metric is the same one, such as a protocol's two versions, name it alike."""
    description: str
    bounds_s: tuple[float, ...]
    """Inclusive upper bounds of all buckets but the last, in seconds, ascending; as C's ``RED_BUCKET_<stem>(ns)``."""
    attributes: Callable[[npt.NDArray[np.void], Mapping[int, bytes], Conversion], list[dict[str, AttributeValue]]]
    """What each ``struct red_key`` says, given the texts by their ids; the id `TEXT_OTHER` has no text."""
    span_kind: SpanKind
    """Of the library's spans, which serve as exemplars."""
    span_attributes: tuple[str, ...]
    """Those of a span that `attributes` can have; with the same values, or the span is no series' exemplar."""
    active: Active | None = None


@dataclass(frozen=True, slots=True)
class Library:
    """One instrumented Go package."""

    stem: str
    """Of its two files; also the name of its record kind."""
    import_path: str
    hooks: tuple[Hook, ...]
    facts: tuple[Fact, ...]
    records: tuple[str, ...] = ()
    """C structs that its programs submit, ``…_record_<bytes>``, its own or another library's; none: it has no spans,
    but adds to those of others, as a router does."""
    columns: Callable[[npt.NDArray[np.void], Conversion], SpanColumns] = no_columns
    duration: Duration | None = None
    """None where there is no such metric."""
    options: tuple[str, ...] = ()
    """Flags of the run that its C code, or `columns`, asks for: ``OPTION_<name>``. Those of its own stand, with their
    help, in a file ``<stem>.toml`` beside its module (otel_goprobe/library_flags.py)."""
    counters: tuple[str, ...] = ()
    """Counters of its own, ``COUNTER_<name>``, that are no drops."""
    drops: tuple[str, ...] = ()
    """Counters of its own that each count spans that were dropped."""
    warnings: tuple[tuple[str, str], ...] = ()
    """What is said once of a target when one of its counters isn't 0 any more, by the counter's name."""
    finds_parents: bool = False
    """Whether its spans look for a parent in the process (bpf/include/parents.h): servers' spans then publish more."""
    active_spans: bool = False
    """Whether its spans are parents that stand in ``active_spans`` (bpf/include/active.h)."""
    side: str = ""
    """Which half of the package: ``client``; empty for its server."""
    wanted: Callable[[GoBinary], bool] = lambda _: True
    """False where the executable has no use for it, which is not worth a word."""
    headers: tuple[str, ...] = ()
    """Files beside its C source that come before all sources, and before bpf/include/active.h and parents.h."""
    macros: tuple[tuple[str, str], ...] = ()
    """What its C code needs to know of this declaration."""

    @property
    def label(self) -> str:
        """What it is called in messages: ``net/http``, ``net/http client``."""
        return f"{self.import_path} {self.side}".rstrip()
