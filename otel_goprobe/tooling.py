"""The tools of one run: records of theirs -> events of spans, log records, metrics, a live table; the agent calls it.

An event of an active, sampled span waits for that span's record, which comes when the span ends: then it becomes an
event of the span and learns its route. The tools' rings are read behind each batch of spans and before its conversion:
so what happened in a span is there when it is converted. What has no such span becomes a log record, with the trace
context.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from otel_goprobe import export, gobinary, kernel, tools
from otel_goprobe.errors import GoprobeError, KernelError, UnsupportedByKernelError
from otel_goprobe.model import Strings
from otel_goprobe.stacks import Stacks, application_frame
from otel_goprobe.tools import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from otel_goprobe.config import Config
    from otel_goprobe.conversion import Converter
    from otel_goprobe.gobinary import Frame, GoBinary
    from otel_goprobe.instrumented import Instrumented
    from otel_goprobe.model import AttributeValue, Event, Metric, Plan, SpanColumns, Target
    from otel_goprobe.specs import Functions
    from otel_goprobe.telemetry import Telemetry
    from otel_goprobe.tools.base import Instrument, Row, Tool

    Resources = Mapping[int, Mapping[str, AttributeValue]]

log = logging.getLogger(__name__)

MAX_WAITING = 65536
"""Events that wait for their spans; beyond it the one that waits longest becomes a log record."""
MAX_STACKS = 16384
"""Whose frame of the application's own is remembered."""
_SPAN_ATTRIBUTES = ("http.route", "http.request.method", "url.path")
"""What rows are told of an event's span."""


class Tools:
    """The tools that a run names, loaded; none costs nothing.

    Args:
        config: which, and where telemetry goes.
        core: the loaded core unit, whose maps are shared.
        converter: for the clock; it shows the spans that it converts, and asks for their events.
        telemetry: counts the spans that tools make themselves.
        exporter: gives what takes these.
    """

    def __init__(
        self,
        config: Config,
        core: kernel.Program,
        converter: Converter,
        telemetry: Telemetry,
        exporter: Callable[[], export.SpanExporter],
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._clock = converter.clock
        self._targets: dict[int, Target] = {}
        self._stacks: dict[int, Stacks] = {}
        self._waiting: OrderedDict[tuple[int, bytes], list[tuple[_Running, Event]]] = OrderedDict()
        self._waits = 0
        self._matched: dict[bytes, list[Event]] = {}
        self._running: list[_Running] = []
        self._logs = export.make_logs_exporter(config) if config.tools else None
        self._config = config
        self._telemetry = telemetry
        self._exporter = exporter
        self._where = cast("tuple[Functions, ...]", config.tool_options.get("where", ()))
        self._wanted: dict[str, bool] = {}
        self._code: dict[tuple[int, tuple[int, ...]], Frame | None] = {}
        try:
            for stem in config.tools:
                self._running.append(self._load(tools.tool(stem), core, config))
        except BaseException:
            self._stack.close()
            raise
        if self._running:
            converter.show(self._see, 0.0)
            converter.events_of = self._events_of

    def _load(self, tool: Tool, core: kernel.Program, config: Config) -> _Running:
        unit = registry.unit(tool, kernel.bpf_folder())
        program = kernel.load(unit, cache_dir=config.cache_dir, maps=core.maps, lazily=True)
        self._stack.callback(program.close)
        ring = kernel.Ring(program.maps["tool_events"], program.dtype(tool.record))
        self._stack.callback(ring.close)
        tracepoints = self._stack.enter_context(kernel.attach_tracepoints(program))
        for skip in tracepoints.skipped:
            log.warning("%s: %s: %s", tool.stem, skip.what, skip.reason)
        return _Running(tool, program, ring, tool.instrument(self, config.tool_options))

    @property
    def deserted(self) -> bool:
        """Whether there were targets, and every process that was one has ended."""
        gone = self._targets and not self._stacks
        return bool(gone) and not any(Path(target.process.exe_path).exists() for target in self._targets.values())

    @property
    def fill(self) -> float:
        """Of the fullest of their rings: 0 to 1."""
        return max((running.ring.fill for running in self._running), default=0.0)

    # --- targets -----------------------------------------------------------------------------------------------------

    def attach(self, one: Instrumented) -> None:
        """Have each tool watch a target whose own probes are attached."""
        if not self._running:
            return
        target, slot = one.target, one.slot
        self._targets[slot] = target
        self._code = {key: frame for key, frame in self._code.items() if key[0] != slot}
        self._stacks[slot] = Stacks(
            Path(f"/proc/{target.pid}/maps").read_text, one.path, target.process.exe, f"/proc/{target.pid}/root"
        )
        thread_pointer = _thread_pointer()
        with gobinary.open_binary(one.path) as binary:
            plans = [(running, registry.plan(running.tool, binary)) for running in self._running]
            self._say_what_nothing_matches(target.pid, binary)
        for running, plan in plans:
            for skip in plan.skipped:
                log.info("pid %d: %s (%s)", target.pid, skip.what, skip.reason)
            try:
                running.watch(one, plan, thread_pointer)
            except GoprobeError as error:
                log.warning("pid %d: %s doesn't watch it: %s", target.pid, running.tool.stem, error)
            if not self._where:
                self._settle_all(running, running.instrument.begin(slot, target))

    def detach(self, one: Instrumented) -> None:
        """Let go of a target, its records drained."""
        for running in self._running:
            running.forget(one.slot)
            self.drain()
            self._settle_all(running, running.instrument.end(one.slot))
        stacks = self._stacks.pop(one.slot, None)
        if stacks:
            stacks.close()
        self._give_up(lambda slot: slot == one.slot)

    # --- `tools.base.Surroundings` -----------------------------------------------------------------------------------

    def unix_ns(self, monotonic_ns: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """See `Surroundings`."""
        return self._clock.unix_ns(monotonic_ns)

    def target(self, slot: int) -> Target | None:
        """See `Surroundings`."""
        return self._targets.get(slot)

    def map_of(self, stem: str, name: str) -> kernel.Map:
        """See `Surroundings`."""
        return next(running.program.maps[name] for running in self._running if running.tool.stem == stem)

    def stack(self, slot: int, pcs: Sequence[int]) -> tuple[Frame, ...]:
        """See `Surroundings`."""
        stacks = self._stacks.get(slot)
        try:
            return stacks.frames(pcs) if stacks else ()
        except (OSError, GoprobeError) as error:  # it has ended
            log.debug("a stack of slot %d can't be resolved: %s", slot, error)
            return ()

    def code(self, slot: int, pcs: Sequence[int]) -> Frame | None:
        """See `Surroundings`."""
        key = slot, tuple(pcs)
        if key not in self._code:
            if len(self._code) >= MAX_STACKS:
                self._code.clear()
            target = self._targets.get(slot)
            module = target.process.build.main.path if target and target.process.build.main else ""
            self._code[key] = application_frame(self.stack(slot, pcs), module)
        return self._code[key]

    # --- records -----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Read the tools' rings."""
        for stacks in self._stacks.values():
            stacks.look()
        for running in self._running:
            while len(records := running.ring.drain()):
                if len(chosen := self._chosen(running.tool, records)):
                    self._settle_all(running, running.instrument.take(chosen))

    def _chosen(self, tool: Tool, records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Leave out what no function that ``--where`` names does."""
        if not self._where:
            return records
        return records[[record["kind"] in tool.follows or self._is_wanted(record) for record in records["header"]]]

    def _is_wanted(self, header: np.void) -> bool:
        frames = self.stack(int(header["slot"]), header["stack"][: header["frames"]].tolist())
        return any(self._is_wanted_function(frame.function) for frame in frames)

    def _is_wanted_function(self, name: str) -> bool:
        if name not in self._wanted:
            self._wanted[name] = any(spec.name.matches(name) for spec in self._where)
        return self._wanted[name]

    def _say_what_nothing_matches(self, pid: int, binary: GoBinary) -> None:
        from otel_goprobe import listing  # noqa: PLC0415 - only for names that nothing has

        names = binary.function_names(inlined=True) if self._where else ()
        for spec in self._where:
            if not any(spec.name.matches(name) for name in names):
                near = ", ".join(listing.nearest(spec.name.text, names)) or "no name is near"
                log.warning("pid %d: no function matches %s; nearest: %s", pid, spec, near)

    def _settle_all(self, running: _Running, events: Iterable[Event]) -> None:
        logs, spans = [], []
        for event in events:
            if event.span:
                spans.append(event)
            if event.sampled and event.span_id and not event.warning:
                self._waiting.setdefault((event.slot, event.span_id), []).append((running, event))
                self._waits += 1
                continue
            running.instrument.settle(event, {})
            logs.append(event)
        self._log(running, logs)
        self._give_spans(running, spans)
        while self._waits > MAX_WAITING:
            _, oldest = self._waiting.popitem(last=False)
            self._without_span(oldest)

    def _give_spans(self, running: _Running, events: list[Event]) -> None:
        if self._config.exporter == "none":
            return
        rooted = (event if event.trace_id else self._root(event) for event in events)
        sampled = [event for event in rooted if event.sampled]
        if sampled:
            resources = {slot: target.resource for slot, target in self._targets.items()}
            scope = f"otel-goprobe/tools/{running.tool.stem}"
            self._telemetry.started(len(sampled))
            self._exporter().submit(export.encode_own_spans(sampled, resources, scope))

    def _root(self, event: Event) -> Event:
        """Begin a trace, sampled as bpf/include/sampling.h decides it."""
        trace_id = os.urandom(16)
        sampler = self._config.sampling.of(self._targets[event.slot].service)
        sampled = int.from_bytes(trace_id[8:], "big") >> 1 < sampler.bound
        return replace(event, trace_id=trace_id, sampled=sampled)

    def _log(self, running: _Running, events: list[Event]) -> None:
        if events and self._logs:
            resources = {slot: target.resource for slot, target in self._targets.items()}
            self._logs.submit(export.encode_logs(events, resources, f"otel-goprobe/tools/{running.tool.stem}"))

    def _without_span(self, waiting: list[tuple[_Running, Event]]) -> None:
        self._waits -= len(waiting)
        for running, event in waiting:
            running.instrument.settle(event, {})
            self._log(running, [event])

    def _give_up(self, of_slot: Callable[[int], bool]) -> None:
        for key in [key for key in self._waiting if of_slot(key[0])]:
            self._without_span(self._waiting.pop(key))

    def _see(self, columns: SpanColumns, resources: Resources) -> None:
        """Give events the route of their spans, which are about to be exported."""
        del resources  # those of its targets
        self._matched.clear()
        if not self._waiting:
            return
        ids = [row.tobytes() for row in columns.span_id]
        for row, key in enumerate(zip(columns.slot.tolist(), ids, strict=True)):
            found = self._waiting.pop(key, None)
            if found is None:
                continue
            self._waits -= len(found)
            span = _attributes(columns, row)
            for running, event in found:
                running.instrument.settle(event, span)
            self._matched[key[1]] = [event for _, event in found]

    def _events_of(self, span_ids: npt.NDArray[np.uint8]) -> dict[int, list[Event]]:
        """See `Converter.events_of`."""
        if not self._matched:
            return {}
        found = ((row, self._matched.get(span_id.tobytes())) for row, span_id in enumerate(span_ids))
        return {row: events for row, events in found if events}

    # --- what comes of it --------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self._running)

    def rows(self, stem: str) -> list[Row]:
        """Return the rows of a tool."""
        return next(running.instrument.rows() for running in self._running if running.tool.stem == stem)

    def metrics(self) -> list[Metric]:
        """Return what the tools have counted."""
        resources = {slot: target.resource for slot, target in self._targets.items()}
        return [metric for running in self._running for metric in running.instrument.metrics(resources)]

    @property
    def exit_code(self) -> int | None:
        """What a tool wants the run to end with, at once."""
        return next((code for each in self._running if (code := each.instrument.exit_code) is not None), None)

    def lost(self) -> dict[str, int]:
        """Return by tool and counter what was lost."""
        return {name: count for running in self._running for name, count in running.lost().items() if count}

    def finish(self) -> None:
        """Take what waits still for spans as it is, and say what was lost."""
        self._give_up(lambda _: True)
        for name, count in self.lost().items():
            log.warning("%s: %d were lost", name, count)
        for running in self._running:
            running.instrument.close()

    def close(self, timeout_s: float) -> None:
        """Deliver what is queued, within `timeout_s`, and unload."""
        if self._logs:
            self._logs.close(timeout_s)
        self._stack.close()


class _Running:
    """One tool, loaded."""

    def __init__(self, tool: Tool, program: kernel.Program, ring: kernel.Ring, instrument: Instrument) -> None:
        self.tool = tool
        self.program = program
        self.ring = ring
        self.instrument = instrument
        self._dtype = program.dtype("tool_target")
        self._attachments: dict[int, kernel.Attachment] = {}

    def watch(self, one: Instrumented, plan: Plan, thread_pointer: int) -> None:
        row = np.zeros(1, self._dtype)
        for member, value in plan.values.items():
            row[member] = value
        row["task_fsbase"] = thread_pointer
        row["active"] = 1
        self.program.maps["tool_targets"].update(kernel.u32(one.slot), row.tobytes())
        self._attachments[one.slot] = kernel.attach(
            self.program, plan, pid=one.target.pid, exe_path=one.path, slot=one.slot
        )

    def forget(self, slot: int) -> None:
        attachment = self._attachments.pop(slot, None)
        if attachment:
            attachment.close()
        self.program.maps["tool_targets"].update(kernel.u32(slot), bytes(self._dtype.itemsize))

    def lost(self) -> dict[str, int]:
        names = registry.counters(self.tool)
        counts = self.program.maps["tool_counters"].sums(0, len(names))
        return {f"{self.tool.stem}: {name}": int(count) for name, count in zip(names, counts, strict=True)}


def _attributes(columns: SpanColumns, row: int) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    for key in _SPAN_ATTRIBUTES:
        column = columns.attributes.get(key)
        if isinstance(column, Strings) and column.codes[row] >= 0:
            found[key] = column.table[column.codes[row]]
    return found


def _thread_pointer() -> int:
    try:
        return kernel.thread_pointer_offset()
    except (UnsupportedByKernelError, KernelError) as error:
        log.warning("which goroutine a system call comes from isn't known: %s", error)
        return 0
