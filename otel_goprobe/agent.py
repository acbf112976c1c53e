"""One run of the agent: processes in sight -> plans -> links -> records -> spans -> exporter, until it is told to stop.

Called by commands/run.py. Everything that can block, exporting above all, has its own thread; this loop only waits for
the next drain, a process event or a signal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import select
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from otel_goprobe import export, kernel, probes
from otel_goprobe.discovery.launch import PASSED_ON, Launch
from otel_goprobe.discovery.watch import Changes, Discovery
from otel_goprobe.durations import Durations
from otel_goprobe.errors import GoprobeError, NothingToInstrument, UnsupportedByKernelError, UsageError
from otel_goprobe.instrumented import Targets
from otel_goprobe.model import Strings
from otel_goprobe.spans import Clock, matching, take
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from otel_goprobe.config import Config
    from otel_goprobe.model import SpanColumns, Target

log = logging.getLogger(__name__)

RINGS = (256, 1024)
"""Record sizes, bytes; each has its ring buffer ``ring_<size>`` and, per library, ``<stem>_record_<size>``."""
DRAIN_RECORDS = 16384
"""At once."""
COUNTERS_EVERY_S = 1.0
RESCAN_EVERY_S = 5.0
"""Full look at all processes besides the kernel's events, for what an overflown event ring lost."""
CLOSE_WITHIN_S = 4.0
"""For the exporter, of the 5 s in which the agent has to be gone."""
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial PID namespace: PROC_PID_INIT_INO, include/linux/proc_ns.h."""


def run(config: Config) -> int:
    """Instrument until SIGINT or SIGTERM, or until the command that was started ends.

    Returns:
        The process's exit code: that of the command after ``--``, else 0.

    Raises:
        GoprobeError: with its own exit code.
    """
    for warning in config.warnings:
        log.warning(warning)
    with contextlib.ExitStack() as stack:
        launch = None
        if config.command:
            user = "" if config.launch_uid is None else f"{config.launch_uid}:{config.launch_gid}"
            launch = Launch(config.command, user=user, environment=config.launch_environment)
            stack.callback(launch.abandon)
        if config.disabled:
            log.warning("OTEL_SDK_DISABLED is set: nothing is instrumented")
            if launch:
                launch.release()
            return launch.wait() if launch else 0
        return Agent(config, stack, launch).run()


class Agent:
    """The loop and what it holds. `stack` closes what it opens, in reverse order."""

    def __init__(self, config: Config, stack: contextlib.ExitStack, launch: Launch | None = None) -> None:
        self.config = config
        self.launch = launch
        self.options = frozenset(name for name in probes.options() if getattr(config, name))
        self.clock = Clock()
        self.telemetry = Telemetry()
        self.signals = stack.enter_context(Signals(launch))
        self.program = stack.enter_context(
            kernel.load(
                probes.unit(kernel.bpf_folder()),
                cache_dir=config.cache_dir,
                sizes={f"{library.stem}_inflight": config.max_in_flight for library in probes.libraries()}
                | {"live_contexts": config.max_in_flight}
                | {f"ring_{size}": config.ring_bytes for size in RINGS}
                | dict.fromkeys(("red_durations", "red_texts"), config.max_series if config.red else 1)
                | ({} if config.red else {"red_overflow": 1})
                | ({} if config.local else {probes.SHARED_MAP: 1}),
                shared=(probes.SHARED_MAP,) if config.local else (),
            )
        )
        self.describe_sockets()
        self.durations = Durations(self.program, self, delta=config.metrics.delta) if config.red else None
        self.metrics_exporter: export.MetricsExporter | None = None
        self.targets = Targets(self.program, config, self.telemetry, self.durations)
        self.rings = {size: self._ring(stack, f"ring_{size}", np.dtype(f"V{size}")) for size in RINGS}
        self.events = self._ring(stack, "process_events", self.program.dtype("process_event"))
        stack.enter_context(kernel.attach_tracepoints(self.program))
        self.discovery = Discovery(config)
        self.sees_kernel_pids = Path("/proc/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
        self.encoder = export.Encoder(
            config.batch.max_batch_spans, attribute_value_length_limit=config.attribute_value_length_limit
        )

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
        if self.launch:
            self.targets.attach(self.discovery.launched(self.launch), self.launch.exe_path)
        else:
            self.follow(self.discovery.scan())
            self.say_if_waiting()
        if self.launch:
            self.launch.release()
        try:
            self.loop()
        finally:
            self.stop()
        return self.launch.wait() if self.launch else 0

    def loop(self) -> None:
        """Drain, follow processes, until a signal or the command's end."""
        interval = self.config.batch.schedule_delay_s
        if self.durations:
            self.metrics_exporter = export.make_metrics_exporter(self.config.metrics)
        poll = select.poll()
        poll.register(self.events.fileno(), select.POLLIN)
        poll.register(self.signals.fileno(), select.POLLIN)
        drain_at = counters_at = time.monotonic()
        rescan_at = drain_at + RESCAN_EVERY_S
        collect_at = drain_at + self.config.metrics.interval_s
        while not (self.signals.stop or self.exporter.reader_gone or self.command_ended()):
            poll.poll(max(0, drain_at - time.monotonic()) * 1e3)
            self.signals.clear()
            self.follow_events()
            now = time.monotonic()
            if now >= drain_at:
                self.drain()
                drain_at = max(drain_at + interval, now)
            if now >= counters_at:
                for one in self.targets:
                    self.targets.read_counters(one)
                counters_at = now + COUNTERS_EVERY_S
            if now >= collect_at:
                self.collect()
                collect_at = now + self.config.metrics.interval_s
            if now >= rescan_at:
                self.follow(self.discovery.scan())
                rescan_at = now + RESCAN_EVERY_S

    def command_ended(self) -> bool:
        """Whether the command that was started has ended."""
        return self.launch is not None and self.launch.poll() is not None

    # --- processes

    def follow_events(self) -> None:
        """Look at the processes that the kernel says have executed a program or ended."""
        overflown = self.events.fill > 1 - 1 / 64
        events = self.events.drain()
        if not len(events):
            return
        pids = {int(pid) for pid in events["tgid"]}
        for pid in {int(pid) for pid in events["tgid"][events["exited"] == 0]}:
            self.discovery.forget(pid)
        self.follow(self.discovery.scan(None if overflown or not self.sees_kernel_pids else pids))

    def follow(self, changes: Changes) -> None:
        """Detach from what is gone, attach to what is new."""
        for notice in changes.notices:
            log.info(notice)
        for process in changes.gone:
            one = self.targets.of(process.pid)
            if one:
                self.targets.detach(one)
                self.drain()
                self.targets.release(one)
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

    def say_if_waiting(self) -> None:
        """Say that there is nothing to instrument yet, or end if the user doesn't want to wait."""
        if len(self.targets):
            return
        if not self.config.wait:
            raise NothingToInstrument("no Go process matches", "start one, or leave --no-wait away to wait for it")
        log.info("waiting for a Go process that matches")

    # --- spans

    def drain(self) -> None:
        """Move what the rings hold to the exporter."""
        self.clock.recalibrate()
        for size, ring in self.rings.items():
            # What comes meanwhile waits for the next drain: to follow it would make a batch of every few records.
            while len(records := ring.drain(DRAIN_RECORDS)):
                for columns in self.columns(size, records):
                    self.export(columns)
                if len(records) < DRAIN_RECORDS:
                    break

    def columns(self, size: int, records: npt.NDArray[np.void]) -> Iterator[SpanColumns]:
        """Turn one ring's records, kind by kind, into columns."""
        kinds = records.view(np.uint16).reshape(len(records), -1)[:, 0]
        for kind, library in probes.kinds().items():
            of_kind = records[kinds == kind]
            if len(of_kind):
                dtype = self.program.dtype(f"{library.stem}_record_{size}")
                yield library.columns(of_kind.view(dtype), self)

    def type_name(self, slot: int, address: int) -> str:
        """See `probes.probes.Conversion`."""
        return self.targets.type_name(slot, address)

    def export(self, columns: SpanColumns) -> None:
        """Leave out what the user excluded, hand over the rest."""
        if self.config.exclude_routes:
            texts = (columns.attributes.get(key) for key in ("http.route", "url.path"))
            excluded = matching([text for text in texts if isinstance(text, Strings)], self.config.exclude_routes)
            if excluded.any():
                self.telemetry.dropped("excluded_route", int(excluded.sum()))
                columns = take(columns, ~excluded)
        for encoded in self.encoder.encode(columns, self.targets.resources):
            self.exporter.submit(encoded)

    # --- metrics

    def collect(self) -> None:
        """Hand what the kernel has added up to the exporter of metrics."""
        if self.durations and self.metrics_exporter:
            metrics = self.durations.collect()
            if metrics:
                self.metrics_exporter.submit(metrics, time.time_ns())

    # --- the end

    def stop(self) -> None:
        """Detach, flush, account for everything, say so."""
        gone = list(self.targets)
        for one in gone:
            self.targets.detach(one)
        self.drain()
        for one in gone:
            self.targets.release(one)
        self.collect()
        closing = time.monotonic()
        self.exporter.close(CLOSE_WITHIN_S)
        if self.metrics_exporter:
            self.metrics_exporter.close(max(CLOSE_WITHIN_S - (time.monotonic() - closing), 0.2))
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


class Signals:
    """Signals as something to poll for: SIGINT and SIGTERM end the agent, or go to the command that it started."""

    def __init__(self, launch: Launch | None) -> None:
        self._launch = launch
        self._reader, self._writer = socket.socketpair()
        self.stop = False

    def __enter__(self) -> Self:
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in PASSED_ON if self._launch else (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def _handle(self, number: int, _frame: object) -> None:
        if self._launch:
            self._launch.signal(number)
        else:
            self.stop = True

    def fileno(self) -> int:
        """Return what becomes readable when a signal came."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Forget the bytes that woke the loop."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(64):
                pass
