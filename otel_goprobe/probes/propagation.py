"""How traces get from process to process: what a way doesn't reach, and which an executable allows.

For people: the attach line, ``doctor`` and ``inspect`` say it. Config.propagation chooses the ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_goprobe.config import Propagation
    from otel_goprobe.probes.selection import LibraryOutcome

_UNREACHED: Mapping[Propagation, str] = {
    "none": "each process has its own traces: --propagation read follows headers, local joins processes of this host",
    "read": "only headers that applications send: --propagation local joins processes of this host",
    "local": "to other hosts only headers that applications send: --propagation wire adds them; HTTP/2 isn't traced",
    "wire": "to other hosts over TLS, or with a head of more than 4 KiB, only headers that applications send:"
    " --propagation write adds them over TLS; HTTP/2 isn't traced",
    "write": "to other hosts with a head of about 4 KiB or more only headers that applications send; HTTP/2 isn't"
    " traced",
}

_NEEDS = {
    "read": ("request_header",),
    "local": (
        "tcp_conn_itab",
        "tcp_conn_fd",
        "net_fd_sysfd",
        "net_fd_laddr",
        "net_fd_raddr",
        "tcp_addr_port",
    ),
}
"""Members of ``struct target`` that C asks for."""


def unreached(propagation: Propagation) -> str:
    """Return which requests find no parent, and the flag that helps."""
    return _UNREACHED[propagation]


def possible(outcomes: Iterable[LibraryOutcome]) -> dict[str, str]:
    """Return for ``read`` and ``local`` why an executable doesn't allow it; empty where it does."""
    reasons = {fact.fact.member: fact.reason for outcome in outcomes for fact in outcome.facts}
    return {
        way: "; ".join(dict.fromkeys(reason for member in members if (reason := reasons.get(member, ""))))
        for way, members in _NEEDS.items()
    }
