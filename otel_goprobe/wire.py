"""``--propagation wire`` and ``write``: a target -> its requests to other hosts carry a header, or why they don't.

start.py calls `allowed`, agent.py `wire_for`, instrumented.py `attach` before a target's probes and `detach` behind
them. The connection's probe arms a request (bpf/include/wire.h), the programs of the unit `wire` insert the header
where it is sent; nothing of the target's memory is written but by ``write``, whose program (bpf/write.bpf.c) is
a probe as others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, Self

from otel_goprobe import kernel, probes
from otel_goprobe.errors import CompilerError, KernelError, UnsupportedByKernelError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from otel_goprobe.config import Config, Propagation
    from otel_goprobe.model import Target

log = logging.getLogger(__name__)


def allowed(config: Config, core: kernel.Program) -> Config:
    """Return what the run asks for, less what this kernel forbids, which is said: programs that write to memory.

    Args:
        config: the run's.
        core: the loaded core unit; those programs are loaded with it where ``--propagation write`` is on.
    """
    if not config.write:
        return config
    try:
        kernel.require_writing()
        core.require(entry.name for entry in core.unit.programs if entry.writes)
    except KernelError as error:
        log.warning(
            "--propagation write: the kernel refuses programs that write to a process's memory, as --propagation wire:"
            " %s",
            error,
        )
        return dataclasses.replace(config, propagation="wire")
    log.info("--propagation write: memory of traced programs is written to, which the kernel's log says as well")
    return config


def wire_for(
    config: Config, core: kernel.Program, *, sees_kernel_pids: bool
) -> contextlib.AbstractContextManager[Wire | None]:
    """Give what inserts headers, to be closed with the agent; None where the run doesn't ask for it."""
    if not config.wire:
        return contextlib.nullcontext()
    return Wire(core, config.cache_dir, config.propagation, sees_kernel_pids=sees_kernel_pids)


class Wire:
    """Headers on the wire for all targets of one agent; without them, where this kernel or its permissions don't allow.

    Args:
        core: the loaded core unit, whose maps are shared.
        cache_dir: where compiled bundles are kept.
        propagation: what it is part of, ``wire`` or ``write``.
        sees_kernel_pids: whether pids here are the kernel's own (the initial PID namespace).
    """

    def __init__(
        self, core: kernel.Program, cache_dir: Path, propagation: Propagation, *, sees_kernel_pids: bool
    ) -> None:
        self._propagation = propagation
        self._tgid_slots = core.maps["tgid_slots"] if sees_kernel_pids else None
        self._stack = contextlib.ExitStack()
        self._sockets: kernel.Sockets | None = None
        try:
            if not any(core.maps["socket_layout"].lookup(bytes(4)) or b""):
                raise UnsupportedByKernelError("connections can't be told apart without the kernel's BTF")
            program = kernel.load(probes.wire_unit(kernel.bpf_folder()), cache_dir=cache_dir, maps=core.maps)
            self._stack.callback(program.close)
            self._sockets = kernel.Sockets(program)
            self._stack.callback(self._sockets.close)
        except (KernelError, CompilerError) as error:
            log.warning("no traceparent header is sent to other hosts, as --propagation local: %s", error)

    def attach(self, target: Target, slot: int) -> Propagation:
        """Take in the target's sockets.

        Returns:
            How its traces get on: as was asked for, or ``local`` where that can't be.

        Raises:
            TargetGoneError: the process ended meanwhile.
        """
        if self._sockets is None:
            return "local"
        try:
            # Else the kernel's number of the process is learnt from its first hit, which comes before it connects.
            if self._tgid_slots:
                self._tgid_slots.update(kernel.u32(target.pid), kernel.u32(slot))
            self._sockets.serve(target.process.ports, slot)
            sockets = self._sockets.watch(target.pid, slot)
        except KernelError as error:
            log.warning(
                "pid %d (%s): no traceparent header is sent to other hosts: %s", target.pid, target.service, error
            )
            return "local"
        log.debug("pid %d: %d connections to other hosts taken in", target.pid, sockets)
        return self._propagation

    def detach(self, slot: int) -> None:
        """Let go of a target's sockets."""
        if self._sockets:
            self._sockets.forget(slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
