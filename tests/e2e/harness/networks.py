"""Network namespaces of a test's own: two of them, a cable between, addresses translated where a test wants so."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_numbers = itertools.count()


def _run(*command: str, given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")


class Network:
    """One namespace; needs root and iproute2.

    Args:
        address: its own on the cable, with the length of the prefix; others lie behind the cable.
    """

    def __init__(self, address: str) -> None:
        self.name = f"gp{os.getpid()}n{next(_numbers)}"
        self.address, _, _ = address.partition("/")
        self._network = address
        self._interface = f"{self.name}e"

    @property
    def prefix(self) -> list[str]:
        """What runs a command in it."""
        return ["ip", "netns", "exec", self.name]

    def translate(self, virtual: str, to: str) -> None:
        """Send connections from here to one HOST:PORT to another, as Kubernetes does for a Service; needs nft."""
        (virtual_host, virtual_port), (host, port) = virtual.split(":"), to.split(":")
        rules = f"""
            table ip services {{
                chain output {{
                    type nat hook output priority -100;
                    ip daddr {virtual_host} tcp dport {virtual_port} dnat to {host}:{port}
                }}
            }}
        """
        _run(*self.prefix, "nft", "-f", "-", given=rules)

    def __enter__(self) -> Self:
        _run("ip", "netns", "add", self.name)
        _run(*self.prefix, "ip", "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run("ip", "netns", "del", self.name)

    def connect(self, other: Network) -> None:
        """Lay a cable to another one."""
        one, two = self._interface, other._interface
        _run("ip", "-n", self.name, "link", "add", one, "type", "veth", "peer", "name", two, "netns", other.name)
        for end in (self, other):
            _run("ip", "-n", end.name, "address", "add", end._network, "dev", end._interface)
            _run("ip", "-n", end.name, "link", "set", end._interface, "up")
            _run("ip", "-n", end.name, "route", "add", "default", "dev", end._interface)
