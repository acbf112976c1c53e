"""The services' own logs and the spans that arrived -> how many spans have the right parent, none, or a wrong one.

Called by `run`. tests/go/propagation says how paths and ids belong together: request ID is ``/front/ID`` at the first
service, the calls for it are ``/call/ID.NUMBER`` at both ends.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from harness.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVER, CLIENT = 2, 3
"""OTLP's SpanKind."""

EXAMPLES = 3
"""Wrong spans that a judgement shows."""


class Line(msgspec.Struct, frozen=True):
    """What a service says of a request that it served or sent; see tests/go/propagation/log.go."""

    event: str
    """``served`` or ``called``."""
    id: str
    path: str
    traceparent: tuple[str, ...] = ()
    """Every such header that came with what it served."""
    worker: int = 0
    """The goroutine of a pool that sent it, from 1; 0: none of a pool's."""
    others: tuple[str, ...] = ()
    """Further requests that what it sent is for."""
    error: str = ""
    """Why what it sent wasn't answered."""


class Link(NamedTuple):
    """Where a span stands; ids as hexadecimal digits."""

    kind: int
    path: str
    trace_id: str
    span_id: str
    parent_span_id: str
    service: str
    links: frozenset[tuple[str, str]] = frozenset()
    """OTLP's links to other spans: trace id and span id of each."""


class Judgement(msgspec.Struct, frozen=True):
    """The spans of one kind at one service, against the truth."""

    expected: int
    right: int = 0
    none: int = 0
    """Without a parent where there is one."""
    wrong: int = 0
    """With another parent, or in a trace that isn't theirs."""
    examples: tuple[str, ...] = ()
    """Some of the wrong ones, in words."""

    @property
    def missing(self) -> int:
        """Spans that didn't arrive, and those whose true parent didn't."""
        return self.expected - self.right - self.none - self.wrong

    def __str__(self) -> str:
        return f"{self.right} / {self.none} / {self.wrong}" + (f" ({self.missing} missing)" if self.missing else "")


class Verdict(msgspec.Struct, frozen=True):
    """What became of one scenario."""

    front: Judgement
    """SERVER spans of the service that the client asks."""
    client: Judgement
    """CLIENT spans of its calls: the parent within a process."""
    links: Judgement
    """The same CLIENT spans: links to the requests that they are for, where they have no parent; none: some lack."""
    back: Judgement
    """SERVER spans of the service that it calls: the parent over a connection."""
    unanswered: int
    """Calls that failed."""
    extra: int
    """Spans beyond the one for each request or call, and those of neither."""
    wrong_by_worker: dict[int, int]
    """Wrong CLIENT spans by the pool's goroutine that sent them; 0: by goroutines of no pool."""


class Links(Receiver):
    """A receiver that keeps up with tens of thousands of spans: it decodes them when they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._requests: list[ExportTraceServiceRequest] = []

    def _keep(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> None:  # noqa: ARG002 - the base's
        self._requests.append(request)

    def links(self) -> list[Link]:
        """Return all spans so far."""
        return [
            Link(
                span.kind,
                _path(span),
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                service,
                frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            )
            for request in self._requests
            for resource in request.resource_spans
            for service in [_attribute(resource.resource, "service.name")]
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _attribute(holder: object, key: str) -> str:
    for attribute in holder.attributes:  # type: ignore[attr-defined] # protobuf's classes have no common base with it
        if attribute.key == key:
            return str(attribute.value.string_value)
    return ""


def _path(span: object) -> str:
    return _attribute(span, "url.path") or "/" + _attribute(span, "url.full").split("/", 3)[-1]


def read_log(path: Path) -> list[Line]:
    """Return the lines of a service that has ended."""
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]


def judge(front: Sequence[Line], back: Sequence[Line], links: Sequence[Link], *, traceparent: bool = False) -> Verdict:
    """Compare parent and trace of every span with the truth.

    Args:
        front: log of the service that calls.
        back: log of the service that is called.
        links: all spans of both.
        traceparent: the client sent ``00-IDID-ID-01``, so that this is where a request's span belongs.
    """
    spans = {(link.kind, link.path): link for link in links}
    asked = [line for line in front if line.event == "served"]
    sent = [line for line in front if line.event == "called"]
    answered = [line for line in back if line.event == "served"]
    requests = {line.id: spans.get((SERVER, line.path)) for line in asked}
    roots = {link.trace_id for link in requests.values() if link}
    at_front, of_calls, at_back = _Count(roots), _Count(roots), _Count(roots)
    for line in asked:
        caller = Link(CLIENT, "", line.id * 2, line.id, "", "client") if traceparent else None
        at_front.compare(line, requests[line.id], caller, root=not traceparent)
    of_links = _Count(roots)
    for line in sent:
        call = spans.get((CLIENT, line.path))
        of_calls.compare(line, call, requests.get(line.id), root=line.id not in requests)
        of_links.compare_links(line, call, [requests[one] for one in (line.id, *line.others) if one in requests])
    for line in answered:
        at_back.compare(line, spans.get((SERVER, line.path)), spans.get((CLIENT, line.path)))
    return Verdict(
        at_front.judgement(),
        of_calls.judgement(),
        of_links.judgement(),
        at_back.judgement(),
        sum(bool(line.error) for line in sent),
        len(links) - at_front.seen - of_calls.seen - at_back.seen,
        dict(of_calls.wrong_by_worker),
    )


class _Count:
    """Spans of one kind at one service, compared one after another.

    Args:
        roots: trace ids of all requests' own spans.
    """

    def __init__(self, roots: Collection[str]) -> None:
        self._roots = roots
        self._outcomes: Counter[str] = Counter()
        self._traces: set[str] = set()
        self._examples: list[str] = []
        self.seen = 0
        self.wrong_by_worker: Counter[int] = Counter()

    def compare(self, line: Line, span: Link | None, parent: Link | None, *, root: bool = False) -> None:
        """Count the span of one logged request; `root`: it has no parent and a trace of its own."""
        self.seen += span is not None
        if span is None or (parent is None and not root):
            self._outcomes["missing"] += 1
            return
        alone = span.parent_span_id == "" and span.trace_id not in self._traces
        if root:
            outcome = "right" if alone else "wrong"
        elif parent and (span.parent_span_id, span.trace_id) == (parent.span_id, parent.trace_id):
            outcome = "right"
        else:
            outcome = "none" if alone and span.trace_id not in self._roots else "wrong"
        if outcome == "none" or root:
            self._traces.add(span.trace_id)
        self.wrong_by_worker[line.worker] += outcome == "wrong"
        self._count(outcome, f"{span}, logged as {line}, belongs to {parent}")

    def compare_links(self, line: Line, span: Link | None, belongs_to: Sequence[Link | None]) -> None:
        """Count a call's span by its links: to each request that it is for, or to none where one is its parent."""
        truth = {(request.trace_id, request.span_id) for request in belongs_to if request}
        if span is None or None in belongs_to:
            outcome = "missing"
        elif span.links - truth:
            outcome = "wrong"
        else:
            outcome = "right" if span.parent_span_id or span.links == truth else "none"
        self._count(outcome, f"{span}, logged as {line}, is for {truth}")

    def _count(self, outcome: str, example: str) -> None:
        self._outcomes[outcome] += 1
        if outcome == "wrong" and len(self._examples) < EXAMPLES:
            self._examples.append(example)

    def judgement(self) -> Judgement:
        """Return the figures."""
        count = self._outcomes
        return Judgement(count.total(), count["right"], count["none"], count["wrong"], tuple(self._examples))
