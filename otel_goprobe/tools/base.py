"""What a tool's declaration is made of.

Roles, in the order in which a reader meets them:

- `Tool`: one instrument that is no library: its module holds this value as ``TOOL`` and an `Instrument`; its C source
  has the same stem under ``bpf/tools/`` and is a unit of its own, which shares the core's maps.
- `Tracepoint`: a BPF program on a raw tracepoint of the kernel. `probes.base.Hook`: one on a Go function.
- `Instrument`: turns the records of one run into events, and keeps the rows of the tool's table.
- `Column`: of that table; the same keys are those of ``--json``.

registry.py makes their units; ``otel-goprobe STEM`` and ``run --with STEM`` need nothing else. `COMMON_OPTIONS` are
those that every tool has without doing anything for them: tooling.py does it.
A record begins with ``struct tool_header`` (bpf/include/tool.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import click

from otel_goprobe import specs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from otel_goprobe.gobinary import Frame
    from otel_goprobe.model import AttributeValue, Event, Metric, Target
    from otel_goprobe.probes.base import Fact, Hook

FRAMES = 40
"""Program counters of a stack that a record holds; TOOL_FRAMES of bpf/include/tool.h."""

COMMON_OPTIONS = (
    click.Option(
        ["--where"],
        multiple=True,
        metavar="SPEC",
        callback=lambda _context, _option, values: tuple(map(specs.functions, values)),
        help="Only what these functions of Go do, or what they call does (repeatable): 'main.(*Cart).*'.",
    ),
)
"""Of every tool's command, and of ``run --with``."""

Row = dict[str, "AttributeValue | None"]
"""Of a tool's table: key of a column -> value."""


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A BPF program on a raw tracepoint."""

    program: str
    event: str
    """Such as ``sys_exit``."""
    required: bool = True
    """False: kernels without it are done without."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a tool's table."""

    key: str
    title: str
    numeric: bool = False
    unit: str = ""
    """``B`` and ``s`` are shown with a prefix."""


class Map(Protocol):
    """A BPF map; kernel.Map is one."""

    def items(self) -> tuple[bytes, bytes]:
        """Return every key of a hash at a moment and its value, each one behind the other."""

    def lookup(self, key: bytes) -> bytes | None:
        """Return an element's value; None where there is none."""

    def update(self, key: bytes, value: bytes) -> None:
        """Write one element."""

    def delete(self, key: bytes) -> bool:
        """Delete one element; tell whether there was one."""


class Surroundings(Protocol):
    """What an instrument may ask while it turns records into events; tooling.py is it."""

    def unix_ns(self, monotonic_ns: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Return the wall-clock time of kernel times."""

    def target(self, slot: int) -> Target | None:
        """Return the target that has a slot, or had it last."""

    def map_of(self, stem: str, name: str) -> Map:
        """Return one of a tool's maps."""

    def stack(self, slot: int, pcs: Sequence[int]) -> tuple[Frame, ...]:
        """Return a stack's frames, innermost first."""

    def code(self, slot: int, pcs: Sequence[int]) -> Frame | None:
        """Return the first frame of a stack that is the application's own."""


class Instrument(Protocol):
    """One run of a tool, over all targets."""

    def begin(self, slot: int, target: Target) -> Iterable[Event]:
        """Hear of a target whose probes are attached; return what of its past is known.

        With ``--where`` it isn't called: the past has no stacks.
        """

    def take(self, records: npt.NDArray[np.void]) -> Iterable[Event]:
        """Turn records, oldest first, into events, each of which comes back by `settle`."""

    def settle(self, event: Event, span: Mapping[str, AttributeValue]) -> None:
        """Count an event; `span`: what is known of its span, ``http.route`` above all, or nothing."""

    def end(self, slot: int) -> Iterable[Event]:
        """Hear that a target is gone."""

    def rows(self) -> list[Row]:
        """Return the table as of now."""

    def metrics(self, resources: Mapping[int, Mapping[str, AttributeValue]]) -> list[Metric]:
        """Return the metrics as of now."""

    @property
    def exit_code(self) -> int | None:
        """Return what the run is to end with, at once; None to go on."""

    def close(self) -> None:
        """End the run: write what was asked for."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One instrument."""

    stem: str
    """Of its files; the name of its command, whose help is the first line of its module's docstring."""
    examples: str
    """Command lines, one a line."""
    record: str
    """The C struct of its records."""
    columns: tuple[Column, ...]
    sort: str
    """Key of the column by which rows are sorted, numbers largest first."""
    instrument: Callable[[Surroundings, Mapping[str, object]], Instrument]
    """Makes one, given the values of `options`."""
    tracepoints: tuple[Tracepoint, ...] = ()
    hooks: tuple[Hook, ...] = ()
    facts: tuple[Fact, ...] = ()
    """Members of ``struct tool_target`` besides those that every tool has."""
    counters: tuple[str, ...] = ()
    """Its own, ``TOOL_COUNTER_<name>``, besides ``ring_full``; each counts something that was lost."""
    ring_pages: int = 4096
    """Of 4 KiB, a power of two; these hold 25,000 records of opens, which are 664 bytes and a header of 8."""
    options: tuple[click.Option, ...] = ()
    """Of its command, besides those that every tool has."""
    bpftrace: Callable[[Sequence[int]], str] | None = None
    """Returns an equivalent bpftrace script for some processes."""
    follows: tuple[int, ...] = ()
    """Kinds of records that are about what an earlier record began, and so have no stack that ``--where`` could ask."""
    structs: tuple[str, ...] = ()
    """Others of its C structs that a table of layouts is wanted of."""
    headers: tuple[str, ...] = ()
    """Files beside its C source that come before it."""

    @property
    def every_option(self) -> tuple[click.Option, ...]:
        """Its own options and `COMMON_OPTIONS`."""
        return (*COMMON_OPTIONS, *self.options)
