"""One run of the agent: processes in sight -> plans -> links -> records -> spans -> exporter, until it is told to stop.

Made by start.py, which has begun with what takes long. Everything that can block, exporting above all, has its own
thread; this loop only waits for the next drain, a process event or a signal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import export, kernel
from otel_goprobe.capacity import RINGS
from otel_goprobe.conversion import Converter
from otel_goprobe.errors import GoprobeError, NothingToInstrument, UnsupportedByKernelError, UsageError
from otel_goprobe.instrumented import Instrumented, Targets
from otel_goprobe.kernel import u32
from otel_goprobe.pace import Pace
from otel_goprobe.telemetry import Telemetry
from otel_goprobe.tooling import Tools
from otel_goprobe.wire import wire_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_goprobe.discovery.watch import Changes
    from otel_goprobe.meter import Meter
    from otel_goprobe.model import Target
    from otel_goprobe.start import Start
    from otel_goprobe.table import Table

log = logging.getLogger(__name__)

TRIM_EVERY_S = 5.0
"""To give memory back costs page faults later: more often, and it shows in the cost of a span."""
FIRST_TRIM_S = 1.0
"""Behind the start of the loop: by then the exporter is imported too."""
DRAIN_RECORDS = 1024
"""At once: what they are turned into takes 1 KB each."""
COUNTERS_EVERY_S = 1.0
TABLE_EVERY_S = 1.0
EVENTS_APART_S = 0.05
"""Between two looks at what the kernel says of processes: the first of many at once, the others together."""
RESCAN_EVERY_S = 5.0
"""Full look at all processes besides the kernel's events, for what an overflown event ring lost."""
CLOSE_WITHIN_S = 4.0
"""For the exporter, of the 5 s in which the agent has to be gone."""


class Timer:
    """Calls `action` every so many seconds, the first time after that many or after `first_s`."""

    def __init__(self, seconds: float, action: Callable[[], None], first_s: float | None = None) -> None:
        self._seconds = seconds
        self._action = action
        self._at = time.monotonic() + (seconds if first_s is None else first_s)

    def run_if_due(self, now: float) -> float:
        """Call it if its time has come; return when that will be."""
        if now >= self._at:
            self._action()
            self._at = now + self._seconds
        return self._at


class Agent:
    """The loop and what it holds. `stack` closes what it opens, in reverse order."""

    def __init__(self, start: Start, stack: contextlib.ExitStack) -> None:
        self.start = start
        self.memory, self.signals = start.memory, start.signals
        self.launch, self.discovery = start.launch, start.discovery
        self.program, self.config = start.program, start.config
        self.pace = Pace(self.config.batch.schedule_delay_s, time.monotonic())
        self.telemetry = Telemetry()
        self.describe_sockets()
        self.table: Table | None = None
        self.converter = Converter(self.program, self.config, self.telemetry, self.type_name)
        self.meter: Meter | None = None
        if self.config.red:
            from otel_goprobe.meter import Meter  # noqa: PLC0415 - only where durations are added up

            self.meter = Meter(self.program, self.converter, self.config)
        self.tools = Tools(self.config, self.program, self.converter, self.telemetry, lambda: self.exporter)
        stack.callback(self.tools.close, 0)
        if self.meter:
            self.meter.of_tools = self.tools.metrics
        durations = self.meter.durations if self.meter else None
        wire = stack.enter_context(wire_for(self.config, self.program, sees_kernel_pids=start.sees_kernel_pids))
        self.targets = Targets(
            self.program, self.config, self.telemetry, plans=start.plans, durations=durations, wire=wire
        )
        self.targets.attached = self.watch
        self.rings = {size: self._ring(stack, f"ring_{size}", np.dtype(f"V{size}")) for size in RINGS}
        if self.config.live:
            from otel_goprobe.table import Table  # noqa: PLC0415 - rich takes 30 ms that only a terminal needs

            self.table = Table(self.tools, self.config)
        self.events = self._ring(stack, "process_events", self.program.dtype("process_event"))

    def describe_sockets(self) -> None:
        """Tell the programs what the kernel's sockets look like; say what is lost where that fails."""
        try:
            kernel.describe_sockets(self.program)
        except UnsupportedByKernelError as error:
            log.warning("requests within this host can't be joined by their connection: %s", error)
        for name in self.program.unshared:
            log.info("the map %s isn't shared with other agents of this host: that takes CAP_SYS_ADMIN", name)

    @functools.cached_property
    def exporter(self) -> export.SpanExporter:
        """Made at first use: its imports can wait until the probes are attached."""
        return export.make_exporter(self.config, self.telemetry)

    def _ring(self, stack: contextlib.ExitStack, name: str, dtype: np.dtype[np.void]) -> kernel.Ring:
        return stack.enter_context(contextlib.closing(kernel.Ring(self.program.maps[name], dtype)))

    def run(self) -> int:
        """Attach to what is there, then follow what comes, drain and export until the end."""
        if self.launch and self.start.launched:
            self.targets.attach(self.start.launched, self.launch.exe_path)
            self.launch.release()
        else:
            self.follow(self.start.changes)
            self.say_if_waiting()
        try:
            self.loop()
        finally:
            self.stop()
        return self.launch.finish(self.wanted_code()) if self.launch else self.wanted_code() or 0

    def wanted_code(self) -> int | None:
        """What a tool wants the run to end with, at once, by a finding or because its time is over."""
        code = self.tools.exit_code
        return 0 if code is None and self.table is not None and self.table.over else code

    def loop(self) -> None:
        """Drain, follow processes, until a signal or the command's end."""
        if self.meter:
            self.meter.open()
        poll = select.poll()
        events, signals = self.events.fileno(), self.signals.fileno()
        poll.register(events, select.POLLIN)
        poll.register(signals, select.POLLIN)
        drain_at = events_at = timers_at = time.monotonic()
        timers = (
            Timer(COUNTERS_EVERY_S, self.read_counters),
            Timer(RESCAN_EVERY_S, lambda: self.follow(self.discovery.scan())),
            Timer(TRIM_EVERY_S, self.memory.give_back, FIRST_TRIM_S),
            *([Timer(self.config.metrics.interval_s, self.meter.collect)] if self.meter else []),
            *([Timer(TABLE_EVERY_S, self.table.show)] if self.table else []),
        )
        while not self.is_over():
            now = time.monotonic()
            if now >= events_at:
                poll.modify(events, select.POLLIN)
            ready = poll.poll(max(0, (drain_at if now >= events_at else min(drain_at, events_at)) - now) * 1e3)
            now = time.monotonic()
            if ready:
                self.signals.clear()
                if self.follow_events():
                    poll.modify(events, 0)
                    events_at = now + EVENTS_APART_S
            if now >= drain_at:
                self.drain_if_worth(now)
                drain_at = max(drain_at + self.pace.interval_s, now)
            if now >= timers_at:
                timers_at = min(timer.run_if_due(now) for timer in timers)

    def is_over(self) -> bool:
        """Whether something wants the run to end."""
        over = self.signals.stop or self.exporter.reader_gone or self.command_ended()
        return over or self.wanted_code() is not None

    def read_counters(self) -> None:
        """Take over what the kernel counted."""
        for one in self.targets:
            self.targets.read_counters(one)

    def command_ended(self) -> bool:
        """Whether the command that was started has ended."""
        return self.launch is not None and self.launch.poll() is not None

    # --- processes

    def follow_events(self) -> bool:
        """Look at the processes that the kernel says have executed a program or ended; tell whether there are any."""
        overflown = self.events.fill > 1 - 1 / 64
        events = self.events.drain()
        if not len(events):
            return False
        pids = {int(pid) for pid in events["tgid"]}
        for pid in {int(pid) for pid in events["tgid"][events["exited"] == 0]}:
            self.discovery.forget(pid)
        self.follow(self.discovery.scan(None if overflown or not self.start.sees_kernel_pids else pids))
        return True

    def follow(self, changes: Changes) -> None:
        """Detach from what is gone, attach to what is new."""
        for notice in changes.notices:
            log.info(notice)
        for process in changes.gone:
            one = self.targets.of(process.pid)
            if one:
                self.targets.detach(one)
                self.drain()
                self.tools.detach(one)
                self.targets.release(one)
                self.converter.forget()
        for target in changes.appeared:
            if not self.targets.of(target.pid):
                self.attach(target)

    def attach(self, target: Target) -> None:
        """Attach to one target; what can't be is fatal only if the user named this very process."""
        try:
            self.targets.attach(target)
        except GoprobeError as error:
            if target.named:
                raise
            log.warning("%s", error)

    def watch(self, one: Instrumented) -> None:
        """Have the kernel tell of this process before its first hit tells the kernel's own number of it."""
        if self.start.sees_kernel_pids:
            self.program.maps["tgid_slots"].update(u32(one.target.pid), u32(one.slot))
        self.tools.attach(one)

    def say_if_waiting(self) -> None:
        """Say that there is nothing to instrument yet, or end if the user doesn't want to wait."""
        if len(self.targets):
            return
        if not self.config.wait:
            raise NothingToInstrument("no Go process matches", "start one, or leave --no-wait away to wait for it")
        log.info("waiting for a Go process that matches")

    # --- spans

    def drain_if_worth(self, now: float) -> None:
        """Drain where there is enough, or now and then a little."""
        fill = max(self.tools.fill, *(ring.fill for ring in self.rings.values()))
        if self.pace.is_worth_a_drain(fill, now):
            self.drain()
        self.tools.drain()

    def drain(self) -> None:
        """Move what the rings hold to the exporter."""
        self.memory.used = True
        self.converter.clock.recalibrate()
        self.tools.drain()
        for size, ring in self.rings.items():
            # What comes meanwhile waits for the next drain: to follow it would make a batch of every few records.
            while len(records := ring.drain(DRAIN_RECORDS)):
                self.tools.drain()  # all that happened in these spans is there now
                for encoded in self.converter.convert(size, records, self.targets.resources):
                    self.exporter.submit(encoded)
                if len(records) < DRAIN_RECORDS:
                    break

    def type_name(self, slot: int, address: int) -> str:
        """See `probes.base.Conversion`."""
        return self.targets.type_name(slot, address)

    # --- the end

    def stop(self) -> None:
        """Detach, flush, account for everything, say so."""
        gone = list(self.targets)
        self.targets.detach(*gone)
        self.drain()
        self.tools.finish()
        if self.table:
            self.table.close()
        for one in gone:
            self.tools.detach(one)
            self.targets.release(one)
        if self.meter:
            self.meter.collect()
        closing = time.monotonic()
        self.exporter.close(CLOSE_WITHIN_S)
        if self.meter:
            self.meter.close(max(CLOSE_WITHIN_S - (time.monotonic() - closing), 0.2))
        self.tools.close(max(CLOSE_WITHIN_S - (time.monotonic() - closing), 0.2))
        snapshot = self.telemetry.snapshot()
        reasons = ", ".join(f"{reason} {count}" for reason, count in snapshot.dropped.items())
        log.info(
            "started %d, exported %d, dropped %d%s",
            snapshot.started,
            snapshot.exported,
            sum(snapshot.dropped.values()),
            f" ({reasons})" if reasons else "",
        )
        if self.config.summary_json:
            summary = {
                "started": snapshot.started,
                "exported": snapshot.exported,
                "dropped": snapshot.dropped,
                "targets": self.targets.summary(),
            }
            try:
                Path(self.config.summary_json).write_text(json.dumps(summary, indent=1) + "\n")
            except OSError as error:
                raise UsageError(f"--summary-json {self.config.summary_json}: {error.strerror}") from error
