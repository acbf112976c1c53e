"""How traces get from process to process: what a way doesn't reach, and which an executable allows.

For people: the attach line, ``doctor`` and ``inspect`` say it. Config.propagation chooses the ways. What the last of
them probes is here as well; http_client.py declares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.probes.base import Field, Hook, Role, Way
from otel_goprobe.probes.places import AtCalls, AtStart

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_goprobe.config import Propagation
    from otel_goprobe.probes.selection import LibraryOutcome

_WRITE_HEADERS = "net/http.Header.writeSubset"
WRITE_HOOK = Hook(
    Role.DETAIL,
    (
        Way("write_request_headers", AtCalls("net/http.(*Request).write", _WRITE_HEADERS)),
        Way("write_request_headers", AtStart(_WRITE_HEADERS, arguments=(1, 2, 3))),
    ),
    lost="traceparent headers over TLS to other hosts",
    option="write",
    writes=True,
)
WRITE_FACTS = (
    Field("persist_conn_bw", "net/http.persistConn", "bw"),
    Field("buffered_writer_err", "bufio.Writer", "err"),
    Field("buffered_writer_buf", "bufio.Writer", "buf"),
    Field("buffered_writer_n", "bufio.Writer", "n"),
    Field("buffered_writer_wr", "bufio.Writer", "wr"),
)
"""What bpf/write.bpf.c asks for, and where it runs: of net/http's clients."""

_UNREACHED: Mapping[Propagation, str] = {
    "none": "each process has its own traces: --propagation read follows headers, local joins processes of this host",
    "read": "only headers that applications send: --propagation local joins processes of this host",
    "local": "to other hosts only headers that applications send: --propagation wire adds them to HTTP/1",
    "wire": "to other hosts over TLS, or with a head of more than 4 KiB, only headers that applications send:"
    " --propagation write adds them over TLS to HTTP/1",
    "write": "to other hosts with a head of about 4 KiB or more, over HTTP/2, or by fasthttp over TLS only headers that"
    " applications send",
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
    "write": tuple(fact.member for fact in WRITE_FACTS),
}
"""Members of ``struct target`` that C asks for; the last are a client's."""


def unreached(propagation: Propagation) -> str:
    """Return which requests find no parent, and the flag that helps."""
    return _UNREACHED[propagation]


def possible(outcomes: Iterable[LibraryOutcome]) -> dict[str, str]:
    """Return for ``read``, ``local`` and, where there is a client, ``write`` why an executable doesn't allow it.

    Empty where it does.
    """
    reasons = {fact.fact.member: fact.reason for outcome in outcomes for fact in outcome.facts}
    return {
        way: "; ".join(dict.fromkeys(reason for member in members if (reason := reasons[member])))
        for way, members in _NEEDS.items()
        if reasons.keys() >= set(members)
    }
