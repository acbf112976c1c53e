"""One run from its start to the agent's loop; `run` is called by commands/run.py and commands/tool.py.

What takes long at a start begins before the rest of the agent is imported: executables that weren't seen before are
analysed in processes of their own, and the kernel verifies the programs of those that were.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from otel_goprobe import kernel, probes
from otel_goprobe.capacity import map_sizes
from otel_goprobe.discovery.launch import Launch
from otel_goprobe.discovery.watch import Changes, Discovery
from otel_goprobe.kernel import u32
from otel_goprobe.memory import Memory
from otel_goprobe.plans import Plans
from otel_goprobe.signals import Signals
from otel_goprobe.wire import allowed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_goprobe.config import Config
    from otel_goprobe.model import Target

log = logging.getLogger(__name__)

EXEC, EXIT = range(2)
"""Rows of ``process_watched_only``; enum process_report in bpf/process.bpf.c."""
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial PID namespace: PROC_PID_INIT_INO, include/linux/proc_ns.h."""
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
        self.program = stack.enter_context(
            kernel.load(
                probes.unit(kernel.bpf_folder()),
                cache_dir=config.cache_dir,
                sizes=map_sizes(config),
                shared=(probes.SHARED_MAP,) if config.local else (),
                lazily=True,
            )
        )
        stack.enter_context(kernel.attach_tracepoints(self.program))
        self.config = allowed(config, self.program)
        self.discovery = Discovery(self.config)
        self.sees_kernel_pids = Path("/proc/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE
        if self.sees_kernel_pids:
            for row, watched_only in ((EXEC, self.discovery.only_pids), (EXIT, True)):
                self.program.maps["process_watched_only"].update(u32(row), u32(watched_only))
        self.plans = Plans(self.config)
        self.launched: Target | None = None
        self.changes = Changes()
        if launch:
            self.program.maps["process_launched"].update(u32(0), u32(launch.pid))
            self.launched = self.discovery.launched(launch)
            self._begin(stack, [launch.exe_path])
        else:
            self.changes = self.discovery.scan()
            self._begin(stack, (target.process.exe_path for target in self.changes.appeared))

    def _begin(self, stack: contextlib.ExitStack, paths: Iterable[str]) -> None:
        """Begin what their plans take; whoever attaches hears what is wrong with one."""
        for path in paths:
            if self.plans.analyses < ANALYSES_AT_ONCE and (file := self.plans.begin(path)) is not None:
                stack.callback(os.close, file)
        self.program.prepare(self.plans.programs_known())
