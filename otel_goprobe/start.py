"""One run from its start to the agent's loop; `run` is called by commands/run.py and commands/tool.py.

What takes long at a start begins before the rest of the agent is imported, numpy above all: where the run names
processes or a command, executables that weren't seen before are analysed in processes of their own, and the kernel
verifies the programs of those that were.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe import kernel
from otel_goprobe.capacity import SHARED_MAP, map_sizes
from otel_goprobe.discovery.launch import Launch
from otel_goprobe.errors import KernelError
from otel_goprobe.memory import Memory
from otel_goprobe.plans import Plans
from otel_goprobe.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_goprobe.config import Config
    from otel_goprobe.model import Target

log = logging.getLogger(__name__)

EXEC, EXIT = range(2)
"""Rows of ``process_watched_only``; enum process_report in bpf/process.bpf.c."""
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial PID namespace: PROC_PID_INIT_INO, include/linux/proc_ns.h."""
UNIT = "core"
"""Of all uprobe programs."""
ANALYSES_AT_ONCE = len(os.sched_getaffinity(0))


def run(config: Config) -> int:
    """Instrument until SIGINT or SIGTERM, or until the command that was started ends.

    What has been imported by then stays: the collector of garbage, which the caller may have switched off, never looks
    at it.

    Returns:
        The process's exit code: that of the command after ``--``, else 0.

    Raises:
        GoprobeError: with its own exit code.
    """
    os.putenv("OPENBLAS_NUM_THREADS", "1")  # read by numpy's: its threads, idle here, spin for 60 ms as they start
    for warning in config.warnings:
        log.warning(warning)
    with contextlib.ExitStack() as stack:
        launch = None
        if config.command:
            launch = Launch(config.command, user=config.user, environment=config.launch_environment)
            stack.callback(launch.abandon)
        if config.disabled:
            log.warning("OTEL_SDK_DISABLED is set: nothing is instrumented")
            if launch:
                launch.release()
            return launch.wait() if launch else 0
        start = Start(config, stack, launch)
        from otel_goprobe.agent import Agent  # noqa: PLC0415 - 50 ms in which the verifier works

        gc.freeze()
        gc.enable()
        return Agent(start, stack).run()


class Start:
    """The loaded core unit and the processes in sight, their plans begun.

    Args:
        config: the run's.
        stack: closes what this opens.
        launch: the command that waits for its exec, if there is one.

    Attributes:
        config: less what this kernel forbids.
        launched: the command as a target.
        changes: what the first look at all processes found; nothing with a command.

    Raises:
        GoprobeError: as `kernel.load`, and as `Discovery` says.
    """

    def __init__(self, config: Config, stack: contextlib.ExitStack, launch: Launch | None) -> None:
        self.launch = launch
        self.memory = Memory()
        self.signals = stack.enter_context(Signals(launch))
        self.plans = Plans(config)
        self._analyse(stack, [launch.exe_path] if launch else _named(config))
        begun = self._verify(config)
        if begun:
            stack.callback(begun.close)

        # What follows takes 0.1 s to import, in which the verifier works.
        from otel_goprobe import probes  # noqa: PLC0415
        from otel_goprobe.discovery.watch import Changes, Discovery  # noqa: PLC0415
        from otel_goprobe.wire import allowed  # noqa: PLC0415

        unit = probes.unit(kernel.bpf_folder())
        self.program = stack.enter_context(
            kernel.load(
                unit,
                cache_dir=config.cache_dir,
                sizes=lambda names: map_sizes(config, names),
                shared=_shared(config),
                lazily=True,
                begun=begun,
            )
        )
        stack.enter_context(kernel.attach_tracepoints(self.program))
        self.config = self.plans.config = allowed(config, self.program)
        self.discovery = Discovery(self.config)
        self.sees_kernel_pids = Path("/proc/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
        if self.sees_kernel_pids:
            for row, watched_only in ((EXEC, self.discovery.only_pids), (EXIT, True)):
                self.program.maps["process_watched_only"].update(kernel.u32(row), kernel.u32(watched_only))
        self.launched: Target | None = None
        self.changes = Changes()
        if launch:
            self.program.maps["process_launched"].update(kernel.u32(0), kernel.u32(launch.pid))
            self.launched = self.discovery.launched(launch)
        else:
            self.changes = self.discovery.scan()
            self._analyse(stack, (target.process.exe_path for target in self.changes.appeared))
        self.program.prepare(self.plans.programs_likely())

    def _analyse(self, stack: contextlib.ExitStack, paths: Iterable[str]) -> None:
        """Begin what their plans take; whoever attaches hears what is wrong with one."""
        for path in paths:
            if self.plans.analyses < ANALYSES_AT_ONCE and (file := self.plans.begin(path)) is not None:
                stack.callback(os.close, file)

    def _verify(self, config: Config) -> kernel.Begun | None:
        """Begin to load the programs of plans that are known, out of the bundle that is at hand."""
        programs = self.plans.programs_known()
        # Programs that write are said in the kernel's log, and refused by some: `allowed` asks first.
        if not programs or config.write or (kept := kernel.kept(UNIT, config.cache_dir)) is None:
            return None
        names = [spec.name for spec in kept.bundle.maps]
        try:
            return kernel.begin(kept, programs, sizes=map_sizes(config, names), shared=_shared(config))
        except KernelError:
            return None  # `load` says what is wrong


def _shared(config: Config) -> tuple[str, ...]:
    return (SHARED_MAP,) if config.local else ()


def _named(config: Config) -> list[str]:
    """Return paths that open the executables of processes that the run names by their pid."""
    selectors = [selector for rule in config.selection.rules for selector in rule.selectors]
    return [f"/proc/{selector.value}/exe" for selector in selectors if selector.kind == "pid"]
