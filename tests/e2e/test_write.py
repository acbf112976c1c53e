"""--propagation write: where the kernel loads programs that write to memory, and where it doesn't.

On kernels under lockdown only the latter can be seen; `make test-kernels` does the former in virtual machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from goprograms import cache_folder, go_binary
from harness.hosts import Program, Traced, counts, intact
from kernels import hosts as checks
from kernels.guest import Guest
from networks import Hosts

from otel_goprobe import kernel
from otel_goprobe.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

BUILDS: dict[str, Callable[[], Path]] = {
    "today": lambda: go_binary("wire"),
    "go1.21-stripped": lambda: go_binary("wire", go="1.21", strip=True),
}


@pytest.fixture(scope="module")
def refused() -> str:
    """Why the kernel loads no programs that write to memory; empty where it does."""
    try:
        kernel.require_writing()
    except KernelError as error:
        return error.message
    return ""


@pytest.mark.propagation
@pytest.mark.parametrize("check", [checks.write, checks.write_killed])
@pytest.mark.parametrize("build", BUILDS)
def test_over_tls(build: str, check: Callable[[Guest], str], refused: str) -> None:
    """What `make test-kernels` checks."""
    if refused:
        pytest.skip(f"kernel lacks programs that write to memory: {refused}")
    print(check(Guest({}, BUILDS[build](), cache_folder())))


@pytest.mark.slow
def test_a_kernel_that_refuses_costs_no_more_than_the_headers(refused: str) -> None:
    """One sentence says why; all else is as with --propagation wire."""
    if not refused:
        pytest.skip("kernel lacks a lockdown")
    with (
        Hosts("w") as hosts,
        Program(go_binary("wire"), hosts.far, "tls", f"{hosts.FAR_IPV4}:0") as server,
        Program(go_binary("wire"), hosts.near, "client", f"https://{server.address}") as client,
        Traced(client, server, "write") as traced,
    ):
        client.send("post", 23, 1000, 4)
        sent = client.log()
        arrived = server.log(len(sent))
        _, _, outcome = traced.stop()
    intact(sent, arrived)
    assert counts(outcome) == {"wire_tls": 23}
    assert "propagation=wire (" in traced.attached_line
    (said,) = [line for line in outcome.stderr.splitlines() if "refuses" in line]
    assert "--propagation write" in said
    assert said.endswith(f", as --propagation wire: {refused}")
