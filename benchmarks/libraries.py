"""What each library's probes cost a request: hits and ns of BPF programs. ``make bench-libraries``.

The programs are those of the tests (tests/go): both ends of HTTP/2, of gRPC and of fasthttp, and each router's
server, which asks itself over HTTP/1. Runs and ns of each program are the kernel's, which adds some 20 ns a run.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import libraries
from goprograms import go_binary

from benchmarks.machine import OTHER_CPUS, give, in_words, machine, table
from benchmarks.processes import Lines, Running, wait_until
from benchmarks.propagation import Cost, counted, names_by_tag
from benchmarks.receivers import discarded
from benchmarks.sites import program_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ATTACH_S = 60.0
REQUESTS = 5003
AT_ONCE = 8
ROUTER_CALLS = 101
"""How often a router's program makes its requests."""
ROUTERS = ("gin", "echo", "chi", "gorilla_mux", "httprouter", "fiber", "fiber_v3")
SERVER_STARTS = ("http_server_request_start", "fasthttp_server_request_start", "fasthttp_server_header_start")
"""One of them runs once a request of a router's server."""
FASTHTTP = "github.com/valyala/fasthttp v1.77.0"
HTTP2_ENDS = {
    "HTTP/2 server": ("http2_server", "http_server"),
    "HTTP/2 client": ("http_client", "http_streams"),
}
GRPC_ENDS = {"gRPC server, unary": ("grpc_server",), "gRPC client, unary": ("grpc_client",)}
"""What a request costs is spent by the programs whose names begin so."""

Spent = dict[str, tuple[int, int]]
"""Runs and ns by BPF program."""


def spent_by(targets: list[Running], names: Mapping[str, str], ask: Callable[[], None]) -> Spent:
    """Attach an agent whose spans are thrown away, ask once, and return what asking once more took."""
    pids = [argument for target in targets for argument in ("--pid", str(target.pid))]
    command = [sys.executable, "-m", "otel_goprobe", "run", *pids]
    with program_statistics(), discarded() as flags, Running([*command, *flags], stderr=subprocess.PIPE) as agent:
        assert agent.process.stderr
        said = Lines(agent.process.stderr)
        if not wait_until(lambda: said.text().count("attached pid=") == len(targets), ATTACH_S):
            raise SystemExit(f"the agent didn't attach:\n{said.text()}")
        ask()
        before = counted(agent.pid, names)
        ask()
        time.sleep(0.05)
        after = counted(agent.pid, names)
    return {name: (runs - before[name][0], ns - before[name][1]) for name, (runs, ns) in after.items()}


def cost(spent: Spent, prefixes: tuple[str, ...], requests: int) -> Cost:
    """Return what a request took of the programs whose names begin so."""
    of_library = [both for name, both in spent.items() if name.startswith(prefixes)]
    return Cost(sum(runs for runs, _ in of_library) / requests, sum(ns for _, ns in of_library) / requests)


def until(running: Running, word: str) -> str:
    """Read lines up to the one that begins with `word`; return it."""
    while not (line := running.line()).startswith(word):
        if running.process.poll() is not None:
            raise SystemExit(f"{running.process.args!r} has ended")
    return line


@contextlib.contextmanager
def ready(*command: str) -> Iterator[tuple[Running, str]]:
    """Start a program of the tests; yield it and, of a server, its address."""
    with Running(command, cpus=OTHER_CPUS, stderr=subprocess.DEVNULL) as running:
        address = until(running, "listening ").split()[1] if "-listen" in command else ""
        until(running, "ready")
        yield running, address


def http2(names: Mapping[str, str]) -> dict[str, Cost]:
    """Return the costs of both ends of HTTP/2 over TLS."""
    exe = str(go_binary("http2"))
    # The server's lines go nowhere: nobody reads them while it answers.
    with ready(exe, "-listen", "127.0.0.1:0") as (server, address):
        reader = Lines(server.process.stdout) if server.process.stdout else None
        assert reader
        with ready(exe, "-call", f"https://{address}") as (client, _):

            def ask() -> None:
                client.tell(f"{REQUESTS} {AT_ONCE}")
                until(client, "done")

            spent = spent_by([server, client], names, ask)
    return {what: cost(spent, prefixes, REQUESTS) for what, prefixes in HTTP2_ENDS.items()}


def grpc(names: Mapping[str, str]) -> dict[str, Cost]:
    """Return the costs of both ends of unary calls."""
    exe = str(go_binary("grpc", language="1.26.0"))
    with ready(exe, "-listen", "127.0.0.1:0", "-ids") as (server, address):
        reader = Lines(server.process.stdout) if server.process.stdout else None
        assert reader
        load = ("-load", str(REQUESTS), "-connections", "1", "-streams", str(AT_ONCE))
        with ready(exe, "-to", address, *load) as (client, _):

            def ask() -> None:
                client.process.send_signal(signal.SIGUSR1)
                until(client, "done")

            spent = spent_by([server, client], names, ask)
    return {what: cost(spent, prefixes, REQUESTS) for what, prefixes in GRPC_ENDS.items()}


def fasthttp_server(names: Mapping[str, str]) -> dict[str, Cost]:
    """Return the cost of a request of fasthttp's server over keep-alive connections."""
    exe = str(go_binary("fasthttp_server", require=(FASTHTTP,)))
    with ready(exe, "-listen", "127.0.0.1:0") as (server, address):
        reader = Lines(server.process.stdout) if server.process.stdout else None
        assert reader
        with ready(exe, "-call", address, "-plain") as (client, _):

            def ask() -> None:
                client.tell(f"{REQUESTS} {AT_ONCE}")
                until(client, "done")

            spent = spent_by([server], names, ask)
    return {"fasthttp server": cost(spent, ("fasthttp_server",), REQUESTS)}


def fasthttp_client(names: Mapping[str, str]) -> dict[str, Cost]:
    """Return the cost of a call of fasthttp's client, made by a net/http server while it answers."""
    command = (str(go_binary("fasthttp_calls", language="1.26.0")), "-listen", "127.0.0.1:0")
    with (
        ready(*command) as (_, back),
        ready(*command, "-origin", back) as (front, address),
        ready(*command, "-origin", address, "-load", str(REQUESTS)) as (caller, _),
    ):

        def ask() -> None:
            caller.process.send_signal(signal.SIGUSR1)
            until(caller, "done")

        spent = spent_by([front], names, ask)
    return {"fasthttp client": cost(spent, ("fasthttp_client",), REQUESTS)}


def router(name: str, names: Mapping[str, str]) -> Cost:
    """Return what a router's probes add to a request of the newest version that tests know."""
    row = libraries.rows(name, libraries.declared()[name])[-1]
    with ready(str(row.executable()), "-listen", "127.0.0.1:0") as (program, _):

        def ask() -> None:
            for _ in range(ROUTER_CALLS):
                program.tell("call")
                until(program, "called")

        spent = spent_by([program], names, ask)
    return cost(spent, (f"{name}_",), sum(spent[start][0] for start in SERVER_STARTS if start in spent))


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the table into this document's block")
    options = parser.parse_args()
    described = machine()
    names = names_by_tag()
    rounds: list[dict[str, Cost]] = []
    for _ in range(options.rounds):
        routers = {f"{name}, on top of its server's": router(name, names) for name in ROUTERS}
        ends = {**http2(names), **grpc(names), **fasthttp_server(names), **fasthttp_client(names)}
        rounds.append({**ends, **routers})
    lines = []
    for what in rounds[0]:
        hits, ns = (statistics.median(getattr(one[what], key) for one in rounds) for key in ("hits", "ns"))
        lines.append([what, f"{hits:.1f}", f"{ns:,.0f}"])
    results = {
        "machine": described,
        "rounds": [{what: [one.hits, one.ns] for what, one in costs.items()} for costs in rounds],
    }
    block = f"{in_words(described)} Medians of {options.rounds} rounds.\n\n{table(['', 'hits', 'ns of BPF'], lines)}\n"
    give(results, {"libraries": block}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
