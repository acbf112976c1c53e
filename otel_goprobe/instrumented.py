"""Targets under instrumentation: which slot each has, its links, its counters; attaching and detaching.

Between agent.py, which decides when, and kernel/, which does it. Files are opened once per target and reached through
their descriptor from then on: what was analysed, what is compared before attaching and what the links name is one
inode, whatever happens to the pid or the path.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import gobinary, kernel, probes
from otel_goprobe.errors import BinaryError, GoprobeError, NothingToInstrument, TargetGoneError
from otel_goprobe.kernel import u32
from otel_goprobe.plans import FileKey, Plans, file_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from otel_goprobe.config import Config, Propagation
    from otel_goprobe.durations import Durations
    from otel_goprobe.model import AttributeValue, Plan, Target
    from otel_goprobe.telemetry import Telemetry
    from otel_goprobe.wire import Wire

log = logging.getLogger(__name__)

_WARNINGS = {
    "unjoinable_connections": "a connection that is no TCP, or of a type that hides it, can't be joined with the other"
    " end: only headers that applications send are followed on it",
    "captured_cut": "metadata that spans were to have was cut: a value of more than 124 bytes, more than 4 of one key,"
    " or more than 448 bytes of one call",
}
"""What is said once of a target when one of its counters isn't 0 any more, besides what libraries say."""

_SECRETS = frozenset(("authorization", "cookie", "proxy-authorization"))
"""Names whose values are credentials."""


@dataclass(slots=True)
class Instrumented:
    """One target and what was attached to it."""

    target: Target
    slot: int
    plan: Plan
    file: int
    """Descriptor of its executable."""
    attachment: kernel.Attachment
    propagation: Propagation
    """How its traces get on; less than was asked for where the kernel doesn't allow that."""
    counts: Counter[str] = field(default_factory=Counter)
    """Totals of the kernel's counters for this slot, as of the last `read_counters`."""
    read: list[int] = field(default_factory=list)
    """What `read_counters` found the last time."""
    said: set[str] = field(default_factory=set)
    """Counters that were warned about."""

    @property
    def path(self) -> str:
        """A path of this process that opens the target's executable."""
        return f"/proc/self/fd/{self.file}"


class Targets:
    """All targets of one agent.

    Args:
        program: the loaded core unit.
        config: for options and sampling.
        telemetry: gets what the kernel's counters say.
        plans: of executables whose analysis has begun.
        durations: told which target has which slot; None where durations aren't added up.
        wire: told of targets before they are probed; None where requests get no header as they are sent.
    """

    def __init__(
        self,
        program: kernel.Program,
        config: Config,
        telemetry: Telemetry,
        *,
        plans: Plans | None = None,
        durations: Durations | None = None,
        wire: Wire | None = None,
    ) -> None:
        self._durations = durations
        self._wire = wire
        self._program = program
        self._telemetry = telemetry
        self._plans = plans or Plans(config)
        self._tools = bool(config.tools)
        self._options = sum(1 << bit for bit, name in enumerate(probes.options()) if config.has(name))
        self._traces = config.traces
        self._sampling = config.sampling
        self._propagation = config.propagation
        self._generation = 0
        self._kept_in_flight = config.max_in_flight // 4
        """Elements, over all targets, up to which one is kept for the next request of its connection."""
        self._free = list(range(probes.MAX_SLOTS - 1, -1, -1))
        self._by_slot: dict[int, Instrumented] = {}
        self._type_names: dict[tuple[FileKey, int], str] = {}
        self._resources: dict[int, Mapping[str, AttributeValue]] = {}
        self._target_dtype = program.dtype("target")
        self._capture(config.library_names)
        self.attached: Callable[[Instrumented], None] = lambda _: None
        """Told of each target once it is attached, before the user is."""
        self.finished: list[dict[str, object]] = []
        """A line of the summary for each target that is gone."""

    def __iter__(self) -> Iterator[Instrumented]:
        return iter(tuple(self._by_slot.values()))

    def __len__(self) -> int:
        return len(self._by_slot)

    @property
    def resources(self) -> Mapping[int, Mapping[str, AttributeValue]]:
        """Resource attributes by slot."""
        return self._resources

    def of(self, pid: int) -> Instrumented | None:
        """Return the target with this pid of the agent's PID namespace."""
        return next((one for one in self._by_slot.values() if one.target.pid == pid), None)

    def attach(self, target: Target, path: str = "") -> Instrumented:
        """Analyse the executable, verify it and attach its probes.

        Args:
            target: the process.
            path: of the executable, where the process hasn't executed it yet.

        Raises:
            NothingToInstrument: no library that is known can be traced in it, with the reasons.
            TargetGoneError: the process ended meanwhile.
            BinaryError, KernelError: as the layers below say.
        """
        began = time.monotonic()
        if not self._free:
            raise NothingToInstrument(f"pid {target.pid}: {probes.MAX_SLOTS} targets are instrumented already")
        try:
            file = os.open(path or target.process.exe_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TargetGoneError(f"the executable of pid {target.pid} can't be opened: {error.strerror}") from error
        try:
            one = self._attach(target, file)
        except GoprobeError:
            os.close(file)
            raise
        self.attached(one)
        log.info(_attached_line(one, (time.monotonic() - began) * 1e3))
        return one

    def _attach(self, target: Target, file: int) -> Instrumented:
        plan = self._plans.of(file)
        if not plan.probes and not self._tools:
            raise NothingToInstrument(f"pid {target.pid} can't be instrumented", _reasons(plan))
        slot = self._free.pop()
        try:
            row = np.zeros(1, self._target_dtype)
            for member, value in plan.values.items():
                row[member] = value
            row["active"] = 1
            row["options"] = self._options
            self._generation += 1
            row["generation"] = self._generation
            row["kept_in_flight"] = self._kept_in_flight
            for member in probes.ID_SEEDS:
                row[member] = int.from_bytes(os.urandom(8))
            self._set_sampling(row, target.service)
            self._forget_slot(slot)
            if self._durations:
                self._durations.begin(slot, target.resource)
            self._program.maps["targets"].update(u32(slot), row.tobytes())
            propagation = self._wire.attach(target, slot) if self._wire else self._propagation
            attachment = kernel.attach(self._program, plan, pid=target.pid, exe_path=f"/proc/self/fd/{file}", slot=slot)
        except GoprobeError:
            if self._wire:
                self._wire.detach(slot)
            self._free.append(slot)
            raise
        one = Instrumented(target, slot, plan, file, attachment, propagation)
        self._by_slot[slot] = one
        self._resources[slot] = target.resource
        return one

    def _capture(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """Say what bpf/include/captured.h is to look for: names by the option that has them, numbered from 1 on."""
        for option, of_option in names.items():
            for name in _SECRETS.intersection(of_option):
                log.warning("--%s: spans will hold the credentials in %s", option.replace("_", "-"), name)
            row = np.zeros(1, self._program.dtype("captured_name"))
            row["option"] = 1 << probes.options().index(option)
            for number, name in enumerate(of_option, start=1):
                row["name"] = np.frombuffer(name.encode().ljust(row["name"].nbytes, b"\0"), np.uint64)
                self._program.maps["captured_names"].update(row.tobytes(), u32(number))

    def _set_sampling(self, row: npt.NDArray[np.void], service: str) -> None:
        """Say which requests become spans; none where no exporter takes spans: nothing then leaves the kernel."""
        if not self._traces:
            return
        sampling = self._sampling
        sampler = sampling.of(service)
        row["sampling_bound"] = sampler.bound
        row["sampling_parents"] = sampler.parent_based
        row["sampling_late"] = sampling.late_rules
        row["sampling_slow_ns"] = sampling.late_slower_ns or 0

    def detach(self, *gone: Instrumented) -> None:
        """Remove the probes; starts go first, so that what is in flight may still end while the others go."""
        kernel.detach(one.attachment for one in gone)
        for one in gone:
            if self._wire:
                self._wire.detach(one.slot)
            self._program.maps["targets"].update(u32(one.slot), bytes(self._target_dtype.itemsize))

    def release(self, one: Instrumented) -> None:
        """Account for a detached target whose records have been drained, and free its slot."""
        one.counts["unfinished"] += self._sweep(one.slot)
        self._telemetry.dropped("unfinished", one.counts["unfinished"])
        self.read_counters(one)
        if self._durations:
            self._durations.end(one.slot)
        self.finished.append(_summary_of(one))
        log.info(_detached_line(one))
        os.close(one.file)
        del self._by_slot[one.slot], self._resources[one.slot]
        self._free.append(one.slot)

    def _forget_slot(self, slot: int) -> None:
        """Empty what the slot's last target left: its counters, and its number in the kernel's PID namespace."""
        counters, tgid_slots = self._program.maps["counters"], self._program.maps["tgid_slots"]
        counters.update(u32(slot), bytes(counters.value_bytes))
        for tgid in list(tgid_slots.keys()):
            if tgid_slots.lookup(tgid) == u32(slot):
                tgid_slots.delete(tgid)

    def _sweep(self, slot: int) -> int:
        """Delete what is kept for a slot; return how many spans were in flight."""
        key_dtype = self._program.dtype("goroutine_key")
        swept = 0
        for kind, library in probes.kinds().items():
            in_flight = self._program.maps.made(f"{library.stem}_inflight")
            if in_flight is None:
                continue
            value_dtype = self._program.dtype(f"{library.stem}_in_flight")
            for key in _of_slot(in_flight, slot, key_dtype):
                value = in_flight.lookup(key)
                if value is not None and in_flight.delete(key):
                    swept += bool(np.frombuffer(value, value_dtype)["start_ns"][0])
            self._program.maps["in_flight_elements"].update(u32(kind), u32(len(in_flight.keys())))
        for name in (
            "goroutines",
            "active_spans",
            "live_contexts",
            "lineages",
            "lineage_used",
            "received",
            "span_links",
            "channel_items",
            "write_armed",
        ):
            of_goroutines = self._program.maps.made(name)
            if of_goroutines is None:
                continue
            for key in _of_slot(of_goroutines, slot, key_dtype):
                of_goroutines.delete(key)
        return swept

    def read_counters(self, one: Instrumented) -> None:
        """Take over what the kernel counted for a target since the last time."""
        names = probes.counters()
        values = self._program.maps["counters"].sums(one.slot, 1).tolist()
        if values == one.read:
            return
        one.read = values
        drops = probes.drops()
        for name, value in zip(names, values, strict=True):
            new = value - one.counts[name]
            if not new:
                continue
            one.counts[name] += new
            if name == "started":
                self._telemetry.started(new)
            elif name in drops:
                self._telemetry.dropped(name, new)
        for name, warning in (_WARNINGS | probes.warnings()).items():
            if one.counts[name] and name not in one.said:
                one.said.add(name)
                log.warning("pid %d (%s): %s", one.target.pid, one.target.service, warning)

    def type_name(self, slot: int, address: int) -> str:
        """Return the name of the Go type at a file address of a target's executable, ``_OTHER`` where there is none."""
        one = self._by_slot.get(slot)
        if one is None:
            return "_OTHER"
        key = (file_key(one.file), address)
        if key not in self._type_names:
            try:
                with gobinary.open_binary(one.path) as binary:
                    self._type_names[key] = binary.type_name(address) or "_OTHER"
            except BinaryError:
                self._type_names[key] = "_OTHER"
        return self._type_names[key]

    def summary(self) -> list[dict[str, object]]:
        """Return a line for each target there was."""
        return [*self.finished, *(_summary_of(one) for one in self)]


def _of_slot(by_goroutine: kernel.Map, slot: int, key_dtype: np.dtype[np.void]) -> list[bytes]:
    keys = by_goroutine.keys()
    return [key for key in keys if np.frombuffer(key, key_dtype)["slot"][0] == slot]


def _reasons(plan: Plan) -> str:
    known = sorted({library.import_path for library, _ in probes.durations().values()})
    return (
        "; ".join(f"{skip.what}: {skip.reason}" for skip in plan.skipped)
        or f"nothing that is known is linked into it ({', '.join(known)})"
    )


def _summary_of(one: Instrumented) -> dict[str, object]:
    return {
        "pid": one.target.pid,
        "service": one.target.service,
        "started": one.counts["started"],
        **{name: one.counts[name] for name in probes.observations()},
        "dropped": {name: one.counts[name] for name in (*probes.drops(), "unfinished") if one.counts[name]},
    }


def _attached_line(one: Instrumented, milliseconds: float) -> str:
    sites = sum(len(probe.sites) for probe in one.plan.probes)
    libraries = ", ".join(dict.fromkeys(probe.library for probe in one.plan.probes))
    line = (
        f"attached pid={one.target.pid} service={one.target.service} go={one.target.process.build.go_version} "
        f"libraries={libraries} probes={sites} ms={milliseconds:.0f} "
        f"propagation={one.propagation} ({probes.unreached(one.propagation)})"
    )
    missing = [f"{skip.what} ({skip.reason})" for skip in one.plan.skipped]
    return f"{line}; not covered: {'; '.join(missing)}" if missing else line


def _detached_line(one: Instrumented) -> str:
    dropped = {name: one.counts[name] for name in (*probes.drops(), "unfinished") if one.counts[name]}
    lost = "".join(f", {name} {count}" for name, count in dropped.items())
    return f"detached pid={one.target.pid} service={one.target.service} started={one.counts['started']}{lost}"
