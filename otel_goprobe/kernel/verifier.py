"""Bytecode -> programs that the kernel has verified, by threads; `loader` makes one `Verifier` a unit.

The verifier takes about a microsecond for each instruction that it walks, 50 to 100 ms for a large program: so programs
are loaded in parallel (it locks nothing for those who may load programs), only when somebody names them, and while
Python imports the rest of the agent.
"""

from __future__ import annotations

import os
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from otel_goprobe.errors import KernelError
from otel_goprobe.kernel import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_goprobe import model
    from otel_goprobe.kernel.bundle import Bytecode
    from otel_goprobe.kernel.maps import Map

AttachWay = Literal["uprobe_multi", "perf_event"]

_CALL = 0x85
_COPY_FROM_USER = 148
_PROBE_READ_USER = 112
"""``bpf_copy_from_user`` may fault a page in and so is for sleepable programs; this one has the same arguments."""

_PSEUDO_MAP_FD = 1

_KINDS: dict[model.ProgramKind, tuple[int, int]] = {
    "uprobe": (syscalls.PROG_KPROBE, 0),
    "raw_tracepoint": (syscalls.PROG_RAW_TRACEPOINT, 0),
    "sock_ops": (syscalls.PROG_SOCK_OPS, syscalls.ATTACH_CGROUP_SOCK_OPS),
    "sk_msg": (syscalls.PROG_SK_MSG, syscalls.ATTACH_SK_MSG_VERDICT),
}
"""Type of a program and its expected attach type."""


class Verifier:
    """The programs of a unit, loaded when they are named.

    Args:
        programs: all of them.
        maps: by the names that the bytecode has for them.
        way: how uprobes are to be attached.
    """

    def __init__(self, programs: Iterable[Bytecode], maps: Mapping[str, Map], way: AttachWay) -> None:
        self._bytecode = {code.name: code for code in programs}
        self._maps = maps
        self._way = way
        self._loading: dict[str, Future[int]] = {}
        self.sleepable = True
        """Whether uprobe programs may fault pages of the target in; that they can't is known once one was refused."""

    def begin(self, kinds: Mapping[str, model.ProgramKind]) -> None:
        """Begin to load those of these programs that aren't yet; `take` waits for them and says what is wrong.

        Args:
            kinds: of what each runs on, by its name.
        """
        wanted = [name for name in kinds if name in self._bytecode and name not in self._loading]
        if not wanted:
            return
        # The longest first, so that none is left alone at the end.
        wanted.sort(key=lambda name: len(self._bytecode[name].instructions), reverse=True)
        pool = ThreadPoolExecutor(min(len(wanted), len(os.sched_getaffinity(0))), "verifier")
        self._loading |= {name: pool.submit(self._load_one, self._bytecode[name], kinds[name]) for name in wanted}
        pool.shutdown(wait=False)

    def take(self, names: Iterable[str]) -> dict[str, int]:
        """Wait for programs that have begun; return their descriptors, the caller's from now on.

        Raises:
            NotPermittedError: for want of a capability.
            KernelError: the kernel refused one, or a map that it uses; none of them stays loaded.
        """
        loads = {name: self._loading.pop(name) for name in names if name in self._loading}
        try:
            loaded = {name: load.result() for name, load in loads.items()}
        except KernelError:
            _close_loaded(loads.values())
            raise
        for name in loaded:
            del self._bytecode[name]
        return loaded

    def close(self) -> None:
        """Let go of what nobody has taken."""
        _close_loaded(self._loading.values())
        self._loading.clear()

    def _load_one(self, code: Bytecode, kind: model.ProgramKind) -> int:
        sleepable = kind == "uprobe" and self.sleepable
        try:
            return self._load(code, kind, sleepable=sleepable)
        except syscalls.ProgramRejectedError as refusal:
            if not sleepable:
                raise
            try:
                descriptor = self._load(code, kind, sleepable=False)
            except syscalls.ProgramRejectedError as error:
                raise error from refusal  # that wasn't the reason
            self.sleepable = False  # kernels before 6.0 refuse
            return descriptor

    def _load(self, code: Bytecode, kind: model.ProgramKind, *, sleepable: bool) -> int:
        number, attach_type = _KINDS[kind]
        if kind == "uprobe" and self._way == "uprobe_multi":
            attach_type = syscalls.ATTACH_UPROBE_MULTI
        return syscalls.prog_load(
            _patched(code, self._maps, may_sleep=sleepable),
            number,
            name=code.name,
            attach_type=attach_type,
            flags=syscalls.PROG_SLEEPABLE if sleepable else 0,
        )


def _close_loaded(loads: Iterable[Future[int]]) -> None:
    for load in loads:
        if load.exception() is None:
            os.close(load.result())


def _patched(program: Bytecode, maps: Mapping[str, Map], *, may_sleep: bool) -> bytes:
    """The instructions with this process's map descriptors in them."""
    code = bytearray(program.instructions)
    for relocation in program.relocations:
        at = 8 * relocation.instruction
        code[at + 1] = code[at + 1] & 0x0F | _PSEUDO_MAP_FD << 4
        struct.pack_into("<i", code, at + 4, maps[relocation.map].descriptor)
    if not may_sleep:
        for at in range(0, len(code), 8):
            if code[at] == _CALL and struct.unpack_from("<Bhi", code, at + 1) == (0, 0, _COPY_FROM_USER):
                struct.pack_into("<i", code, at + 4, _PROBE_READ_USER)
    return bytes(code)
