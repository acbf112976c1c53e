"""Two network namespaces with a cable between them, in place of two hosts; called by tests of folders bpf and e2e."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
"""include/uapi/linux/sched.h."""


class Hosts:
    """Two namespaces; a context manager that removes them.

    Attributes:
        near: name of the first, as ``ip netns exec`` wants it.
        far: name of the second.
    """

    NEAR_IPV4, FAR_IPV4 = "10.203.0.1", "10.203.0.2"
    NEAR_IPV6, FAR_IPV6 = "fd00:203::1", "fd00:203::2"

    def __init__(self, label: str = "") -> None:
        self.near = f"goprobe-{os.getpid()}{label}-near"
        self.far = f"goprobe-{os.getpid()}{label}-far"
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for name in (self.near, self.far):
                _ip("netns", "add", name)
                undo.callback(_ip, "netns", "delete", name)
            _ip("-n", self.near, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", self.far)
            for name, ipv4, ipv6 in (
                (self.near, self.NEAR_IPV4, self.NEAR_IPV6),
                (self.far, self.FAR_IPV4, self.FAR_IPV6),
            ):
                _ip("-n", name, "address", "add", f"{ipv4}/24", "dev", "cable")
                _ip("-n", name, "address", "add", f"{ipv6}/64", "dev", "cable", "nodad")
                _ip("-n", name, "link", "set", "cable", "up")
                _ip("-n", name, "link", "set", "lo", "up")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


def inside(namespace: str, action: Callable[[], T]) -> T:
    """Return what `action` does in a network namespace; a socket that it makes stays there."""

    def run() -> T:
        with Path(f"/run/netns/{namespace}").open("rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {namespace}")
        return action()

    with ThreadPoolExecutor(1) as thread:  # its own: a namespace is a thread's
        return thread.submit(run).result()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
