"""All declarations -> the C unit of the uprobe programs, and the numbers that C and Python share.

Called by start.py and instrumented.py. A library is found by its module being here: no list names it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from otel_goprobe.library_flags import MAX_NAMES, NAME_BYTES
from otel_goprobe.model import Unit, UnitProgram
from otel_goprobe.probes.base import Duration, Fact, Field, Itab, Library, ReadOnly, StructPresent, Type, Variable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_SLOTS = 1024
"""Targets at once; an element of the BPF array `targets` each."""
COUNTERS = ("started", "sampled_out", "in_flight_full", "ring_full", "abandoned")
"""Counters of every library. All but the first count spans that were dropped."""
TARGET_TRAITS = ("finds_parents", "active_spans")
"""Of a `Library`; bit n of ``target.traits`` says whether one with the nth is instrumented in the target."""
WIRE_COUNTERS = (
    "wire_injected",
    "wire_own_header",
    "wire_tls",
    "wire_unseen_socket",
    "wire_sockets_full",
    "wire_long_head",
    "wire_no_head",
    "wire_failed",
    "write_inserted",
    "write_own_header",
    "write_no_room",
    "write_failed",
)
"""Requests to other hosts by what became of their traceparent header (bpf/include/wire.h, bpf/wire.bpf.c,
bpf/write.bpf.c), and sockets that found no room."""
OBSERVATIONS = (
    "metric_overflow",
    "metric_lost",
    "unjoinable_connections",
    "active_spans_full",
    "contexts_full",
    "captured_cut",
    *WIRE_COUNTERS,
)
"""Counters of every library that count no spans."""
MAX_SERIES = 4096
"""Series of durations, over all targets (the agent sets its own), and series without routes for what comes behind."""
RED_CHUNK = 16
"""Buckets of an exponential histogram that one element of ``red_durations`` holds: two powers of two."""
SAMPLING_U64 = ("sampling_bound", "sampling_slow_ns")
SAMPLING_U32 = ("sampling_parents", "sampling_late")
"""Members of ``struct target`` that bpf/include/sampling.h decides by; `otel_goprobe.sampling` makes the numbers."""
ID_SEEDS = ("id_seed_high", "id_seed_low")
"""Random 64-bit members of ``struct target``, from which bpf/include/ids.h makes ids."""
SHARED_FACTS: tuple[Fact, ...] = (
    Field("g_goid", "runtime.g", "goid", required=True),
    Field("g_parent_goid", "runtime.g", "parentGoid"),
    StructPresent("swiss_maps", "internal/runtime/maps.Map"),
    Itab("tcp_conn_itab", "*net.TCPConn", "net.Conn", required=False),
    Field("tcp_conn_fd", "net.TCPConn", "conn.fd"),
    Field("net_fd_sysfd", "net.netFD", "pfd.Sysfd"),
    Field("net_fd_laddr", "net.netFD", "laddr"),
    Field("net_fd_raddr", "net.netFD", "raddr"),
    Field("tcp_addr_port", "net.TCPAddr", "Port"),
    ReadOnly("read_only_end"),
)
"""What bpf/include/go.h and connections.h ask for. Source of the names: src/runtime/runtime2.go,
src/internal/runtime/maps/map.go, src/net/tcpsock.go, src/net/fd_posix.go, src/internal/poll/fd_unix.go."""
PARENT_FACTS: tuple[Fact, ...] = (
    Itab("cancel_context_itab", "*context.cancelCtx", "context.Context"),
    Itab("background_context_itab", "context.backgroundCtx", "context.Context", required=False),
    Itab("todo_context_itab", "context.todoCtx", "context.Context", required=False),
    Variable("runtime_sched", "runtime.sched", lost="parents by the goroutine that started one"),
    Field("g_m", "runtime.g", "m"),
    Field("m_p", "runtime.m", "p"),
    Field("p_goidcache", "runtime.p", "goidcache", lost="parents by the goroutine that started one"),
)
"""The same of libraries that find parents: live.h and parents.h. Source also: src/context/context.go."""


@functools.cache
def libraries() -> tuple[Library, ...]:
    """Return every declaration of this package, in the order of their stems."""
    package = importlib.import_module("otel_goprobe.probes")
    modules = sorted(m.name for m in pkgutil.iter_modules(package.__path__))
    found = (getattr(importlib.import_module(f"otel_goprobe.probes.{name}"), "LIBRARY", None) for name in modules)
    return tuple(library for library in found if library is not None)


@functools.cache
def counters() -> tuple[str, ...]:
    """Return the names of all counters; their order is that of the C enum."""
    return (COUNTERS[0], *drops(), *observations())


def drops() -> tuple[str, ...]:
    """Return the names of the counters that each count spans that were dropped."""
    return (*COUNTERS[1:], *dict.fromkeys(name for library in libraries() for name in library.drops))


def observations() -> tuple[str, ...]:
    """Return the names of the counters that count no spans."""
    return tuple(dict.fromkeys((*OBSERVATIONS, *(name for library in libraries() for name in library.counters))))


def warnings() -> dict[str, str]:
    """Return what is said once of a target when a counter isn't 0 any more, by the counter's name."""
    return {name: said for library in libraries() for name, said in library.warnings}


@functools.cache
def options() -> tuple[str, ...]:
    """Return the names of all options; bit n of ``target.options`` is the nth."""
    own = (name for library in libraries() for name in library.options)
    return tuple(dict.fromkeys(("red", "red_exponential", "local", "wire", "write", *own)))


@functools.cache
def kinds() -> dict[int, Library]:
    """Return the libraries that have spans by the number that their records carry."""
    return dict(enumerate((library for library in libraries() if library.records), start=1))


@functools.cache
def durations() -> dict[int, tuple[Library, Duration]]:
    """Return, by kind, the libraries whose durations are added up."""
    return {kind: (library, library.duration) for kind, library in kinds().items() if library.duration}


def _members() -> Iterable[tuple[str, str]]:
    """Members of ``struct target`` with their C type, largest first so that nothing is padded."""
    all_facts = (*SHARED_FACTS, *PARENT_FACTS, *(fact for library in libraries() for fact in library.facts))
    facts = {fact.member: fact for fact in all_facts}.values()
    addresses = [hook.address for library in libraries() for hook in library.hooks if hook.address]
    words = (fact.member for fact in facts if isinstance(fact, (Itab, ReadOnly, Type, Variable)))
    for name in (*dict.fromkeys(addresses), *words, *SAMPLING_U64, *ID_SEEDS):
        yield name, "u64"
    for name in ("active", "tgid", "options", "traits", "generation", "kept_in_flight", *SAMPLING_U32):
        yield name, "u32"
    for fact in facts:
        if not isinstance(fact, (Itab, ReadOnly, Type, Variable)):
            yield fact.member, "u16"


def header() -> str:
    """Return the generated C: ids, limits and ``struct target``, so that no list stands twice."""
    members = list(_members())
    shorts = sum(kind == "u16" for _, kind in members)
    lines = [
        f"#define MAX_SLOTS {MAX_SLOTS}",
        f"#define COUNTERS {len(counters())}",
        *(f"#define COUNTER_{name} {i}" for i, name in enumerate(counters())),
        *(f"#define OPTION_{name} {1 << i}" for i, name in enumerate(options())),
        *(f"#define TARGET_{name.upper()} {1 << i}" for i, name in enumerate(TARGET_TRAITS)),
        *(f"#define KIND_{library.stem} {kind}" for kind, library in kinds().items()),
        f"#define KINDS {len(kinds()) + 1}",
        f"#define CAPTURED_NAME_BYTES {NAME_BYTES}",
        f"#define CAPTURED_NAMES {MAX_NAMES}",
        f"#define RED_MAX_SERIES {MAX_SERIES}",
        f"#define RED_CHUNK {RED_CHUNK}",
        f"#define RED_BUCKETS {max(RED_CHUNK, *(len(duration.bounds_s) + 1 for _, duration in durations().values()))}",
        *(_bucket_macro(library.stem, duration.bounds_s) for library, duration in durations().values()),
        *(f"#define {name} ({value})" for library in libraries() for name, value in library.macros),
        "struct target {",
        *(f"\t{kind} {name};" for name, kind in members),
        *([f"\tu16 padding[{-shorts % 4}];"] if shorts % 4 else []),
        "};",
    ]
    return "\n".join(lines) + "\n"


def _bucket_macro(stem: str, bounds_s: tuple[float, ...]) -> str:
    """Return the index of the bucket that a duration falls into: OTLP's bounds are inclusive upper ones.

    By arithmetic: of comparisons Linux 6.1's verifier follows all 2^14 ways through.
    """
    terms = " + ".join(f"is_negative({round(bound * 1e9)}ULL - (ns))" for bound in bounds_s)
    return f"#define RED_BUCKET_{stem}(ns) ({terms})"


def unit(sources: Path) -> Unit:
    """Return the unit of all uprobe programs.

    Args:
        sources: the folder ``bpf/`` of this installation.
    """
    hooks = [hook for library in libraries() for hook in library.hooks]
    programs = {way.program for hook in hooks for way in hook.ways}
    writing = {way.program for hook in hooks if hook.writes for way in hook.ways}
    return Unit(
        name="core",
        header=header(),
        sources=(
            sources / "include/trace.h",
            sources / "include/trace_line.h",
            sources / "include/ids.h",
            sources / "include/sampling.h",
            sources / "include/go.h",
            sources / "include/span.h",
            sources / "include/b3.h",
            sources / "include/b3_read.h",
            sources / "include/sockets.h",
            sources / "include/connections.h",
            sources / "include/exponential.h",
            sources / "include/red.h",
            sources / "include/wire.h",
            sources / "include/live.h",
            sources / "include/client_span.h",
            sources / "include/captured.h",
            sources / "process.bpf.c",
            *(sources / "probes" / name for library in libraries() for name in library.headers),
            sources / "include/links.h",
            sources / "include/active.h",
            sources / "include/parents.h",
            sources / "include/client_life.h",
            *(sources / "probes" / f"{library.stem}.bpf.c" for library in libraries()),
            sources / "channels.bpf.c",
            sources / "write.bpf.c",
        ),
        programs=(
            *(UnitProgram(name, writes=name in writing) for name in sorted(programs)),
            UnitProgram("process_exec", "raw_tracepoint", "sched_process_exec"),
            UnitProgram("process_exit", "raw_tracepoint", "sched_process_exit"),
        ),
        structs=(
            "target",
            "process_event",
            "span_header",
            "goroutine_key",
            "socket_layout",
            "received_items",
            "captured_name",
            "red_key",
            "red_series",
            *(f"{library.stem}_in_flight" for library in kinds().values()),
            *dict.fromkeys(record for library in libraries() for record in library.records),
        ),
    )


def wire_unit(sources: Path) -> Unit:
    """Return the unit of the programs that insert headers into what sockets send; its maps are the core's but for one.

    Args:
        sources: as for `unit`.
    """
    return Unit(
        name="wire",
        # Of the headers it shares with the core it uses a part.
        header=f'#pragma clang diagnostic ignored "-Wunused-function"\n{header()}',
        sources=(
            sources / "include/trace.h",
            sources / "include/trace_line.h",
            sources / "include/ids.h",
            sources / "include/go.h",
            sources / "include/span.h",
            sources / "include/sockets.h",
            sources / "include/wire.h",
            sources / "wire.bpf.c",
        ),
        programs=(UnitProgram("wire_connection", "sock_ops"), UnitProgram("wire_message", "sk_msg")),
        structs=("socket_layout",),
    )
