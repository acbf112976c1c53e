"""Checks of `--propagation` between two hosts, which are network namespaces here; `checks` lists them."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from harness.agent import Agent
from harness.hosts import Program, Traced, counts, intact, joined
from harness.receiver import Receiver
from harness.traces import program_runs, program_statistics
from networks import Hosts

from kernels.guest import ATTACH_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kernels.guest import Guest

PROGRAM = "wire"
"""The program of tests/go."""
WAIT_S = 300.0
KINDS = ("get", "post", "chunked", "expect", "file", "own", "raw", "many", "header", "close", "long")
REQUESTS = 23
MIXED_REQUESTS = 307
NICE = ("nice", "-n", "19")
"""Of programs that never pause: the agents need a processor as well."""
BUFFER_BYTES = 4096
"""net/http/transport.go, Transport.writeBufferSize."""
LINE_BYTES = 70
"""TRACEPARENT_LINE_BYTES of bpf/include/trace_line.h."""


def wire(guest: Guest) -> str:
    """Each plaintext request arrives once, intact and with one header."""
    with (
        Hosts() as hosts,
        Program(guest.hosts_program, hosts.far, "server", f"{hosts.FAR_IPV4}:0", wait_s=WAIT_S) as server,
        Program(guest.hosts_program, hosts.near, "client", f"http://{server.address}", wait_s=WAIT_S) as client,
        Traced(client, server, environment=guest.environment, attach_s=ATTACH_S) as traced,
    ):
        for kind in KINDS:
            client.send(kind, REQUESTS, 10_000, 4)
        sent = client.log()
        arrived = server.log(len(sent))
        client_spans, server_spans, outcome = traced.stop()
    intact(sent, arrived)
    joined(sent, arrived, client_spans, server_spans, lambda line: line["kind"] in {"header", "long"})
    own = sum(bool(line["own"]) for line in sent.values())
    inserted = len(sent) - own - 2 * REQUESTS
    assert counts(outcome) == {"wire_injected": inserted, "wire_own_header": own, "wire_long_head": 2 * REQUESTS}
    return f"{inserted} of {inserted} headers; {own} own ones kept"


def write(guest: Guest) -> str:
    """Each request over TLS arrives once, intact and with one header, unless its buffer has no room."""
    with (
        Hosts() as hosts,
        Program(guest.hosts_program, hosts.far, "tls", f"{hosts.FAR_IPV4}:0", wait_s=WAIT_S) as server,
        Program(guest.hosts_program, hosts.near, "client", f"https://{server.address}", wait_s=WAIT_S) as client,
        Traced(client, server, "write", environment=guest.environment, attach_s=ATTACH_S) as traced,
        program_statistics(),
    ):
        assert "propagation=write (" in traced.attached_line
        for kind in KINDS:
            client.send(kind, REQUESTS, 10_000, 4)
        for size in range(BUFFER_BYTES - 400, BUFFER_BYTES + 100, 7):
            client.send("query", 1, size)
        client.send("mixed", MIXED_REQUESTS, -100_000, 16)
        sent = client.log()
        arrived = server.log(len(sent))
        share = write_share(program_runs(traced.client_agent_pid))
        client_spans, server_spans, outcome = traced.stop()
    intact(sent, arrived)
    full = {id_ for id_, line in arrived.items() if is_full(sent[id_], line, server.address)}
    joined(sent, arrived, client_spans, server_spans, lambda line: line["id"] in full)
    own = sum(bool(line["own"]) for line in sent.values())
    inserted = len(sent) - own - len(full)
    assert full
    assert counts(outcome) == {"write_inserted": inserted, "write_own_header": own, "write_no_room": len(full)}
    found = f"{inserted} of {inserted} headers; {own} own ones kept; {len(full)} found no room"
    return f"{found}; takes {share:.0%} of a client span's ns"


def write_share(runs: Mapping[str, tuple[int, int]]) -> float:
    """Return what the program that writes takes, as a share of what all others take that make the client's spans.

    What a processor that is emulated tells of a real one: these programs do the same kinds of things.
    """
    of_spans = sum(ns for name, (_, ns) in runs.items() if name.startswith("http_client"))
    return runs["write_request_h"][1] / of_spans


def is_full(sent: Mapping[str, Any], arrived: Mapping[str, Any], address: str) -> bool:
    """Whether what net/http writes before the headers, by Request.write, leaves no room in the buffer."""
    if sent["kind"] != "query":
        return False
    line = f"GET {arrived['path']}?{'x' * sent['size']} HTTP/1.1\r\n"
    head = len(f"{line}Host: {address}\r\nUser-Agent: Go-http-client/1.1\r\n")
    return BUFFER_BYTES - LINE_BYTES < head <= BUFFER_BYTES


def write_killed(guest: Guest) -> str:
    """Agents come, two at a time, and are killed while requests are under way: none fails, is changed or has two."""
    waiting: dict[str, Any] = {"wait_s": WAIT_S, "prefix": NICE}
    with (
        Hosts() as hosts,
        Program(guest.hosts_program, hosts.far, "tls", f"{hosts.FAR_IPV4}:0", **waiting) as server,
        Program(guest.hosts_program, hosts.near, "client", f"https://{server.address}", **waiting) as client,
        Receiver() as receiver,
    ):
        client.tell("mixed", 1_000_000, -20_000, 4)
        for _ in range(2):
            environment = {**guest.environment, **receiver.environment}
            with ExitStack() as stack:
                agents = []
                for _ in range(2):
                    agent = Agent("--pid", str(client.pid), "--propagation", "write", environment=environment)
                    agents.append(stack.enter_context(agent))
                    agent.stderr.wait_for("^attached", timeout_s=ATTACH_S)
                    time.sleep(5)
                for agent in agents:
                    agent.kill()
        client.process.kill()
        client.process.wait()
        client.stdout.join()
        sent = client.log()
        time.sleep(5)
        arrived = server.log(len(sent))
    # The last ones were cut off with the client.
    intact(sent, {id_: line for id_, line in arrived.items() if id_ in sent})
    headers = Counter(
        len(line["traceparents"] or ()) for id_, line in arrived.items() if not sent.get(id_, {}).get("own")
    )
    assert set(headers) <= {0, 1}, headers
    assert headers[1] > REQUESTS, headers
    return f"{len(sent)} requests, {headers[1]} with a header, none failed"
