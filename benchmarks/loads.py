"""Requests to the target: by wrk, as fast as it answers, or by vegeta, at a fixed rate. For overhead.py."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.machine import OTHER_CPUS
from benchmarks.processes import TEMPORARY, cpu_ns
from benchmarks.programs import need, vegeta

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.processes import Server

SCRIPT = Path(__file__).with_name("wrk.lua")
TRICKLE_S = 0.005
MAX_IN_FLIGHT = 128
"""Of vegeta's requests: when it is kept from its core it must not open thousands of connections to catch up. The rate
then isn't kept, which the results show."""


@dataclass(frozen=True, slots=True)
class Load:
    """One way to ask the target."""

    path: str
    rate: int = 0
    """Requests a second; 0: each of `connections` asks again as soon as it is answered."""
    connections: int = 16

    def __str__(self) -> str:
        return f"{self.path} at {self.rate:,}/s" if self.rate else f"{self.path}, {self.connections} connections"

    def run(self, server: Server, seconds: float) -> dict[str, Any]:
        """Ask for so long.

        Returns:
            ``requests`` as the target counts them, ``requests_per_s``, ``p50_us``, ``p99_us``, ``p999_us``, ``errors``,
            ``target_cpu_us`` a request, ``target_share`` and ``load_share``, of a core.
        """
        requests, cpu, own = server.requests, cpu_ns(server.pid), _children_s()
        found = self._vegeta(server, seconds) if self.rate else self._wrk(server, seconds)
        elapsed = found.pop("seconds")
        asked = server.requests - requests
        used_ns = cpu_ns(server.pid) - cpu
        return found | {
            "requests": asked,
            "requests_per_s": asked / elapsed,
            "target_cpu_us": used_ns / 1e3 / asked,
            "target_share": used_ns / 1e9 / elapsed,
            "load_share": (_children_s() - own) / elapsed,
        }

    def _wrk(self, server: Server, seconds: float) -> dict[str, Any]:
        flags = ["-t1", f"-c{self.connections}", f"-d{seconds:g}s", "-s", str(SCRIPT)]
        output = _printed([need("wrk", "wrk"), *flags, server.url(self.path)])
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    def _vegeta(self, server: Server, seconds: float) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(prefix=TEMPORARY) as results:
            most = [f"-{limit}={MAX_IN_FLIGHT}" for limit in ("max-workers", "max-connections", "connections")]
            flags = [
                *most,
                f"-rate={self.rate}/1s",
                f"-duration={seconds:g}s",
                "-max-body=0",
                f"-output={results.name}",
            ]
            _printed([vegeta(), "attack", *flags], f"GET {server.url(self.path)}\n")
            rows = [line.split(",", 4) for line in _printed([vegeta(), "encode", "-to=csv", results.name]).splitlines()]
        sent, status, latency = (np.array([row[column] for row in rows], np.int64) for column in range(3))
        p50, p99, p999 = np.percentile(latency / 1e3, [50, 99, 99.9]).tolist()
        seconds = (int(sent.max()) - int(sent.min())) / 1e9
        errors = int((status != 200).sum())
        return {"seconds": seconds, "p50_us": p50, "p99_us": p99, "p999_us": p999, "errors": errors}


def _printed(command: Sequence[str | Path], written: str = "") -> str:
    line = ["taskset", "-c", ",".join(map(str, OTHER_CPUS)), *command]
    done = subprocess.run(line, input=written, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def trickle(server: Server) -> Iterator[None]:
    """Ask for the smallest answer every 5 ms, so that there is a span to wait for."""
    stopped = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        while not stopped.wait(TRICKLE_S):
            connection.request("GET", "/small")
            connection.getresponse().read()
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
