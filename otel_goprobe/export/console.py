"""Batches of encoded spans -> trace trees, or JSON lines, on standard output; made by `export.make_exporter`.

JSON lines (``--json``): one object per span, keys in this order, ids in hexadecimal, times as decimal strings because
they don't fit into a double (both as in OTLP's JSON)::

    {"traceId", "spanId", "parentSpanId", "name", "kind": "SERVER", "startTimeUnixNano", "endTimeUnixNano",
     "durationMs": 1.25, "status": "ERROR" | "UNSET", "scope", "attributes": {…}, "resource": {…},
     "links": [{"traceId", "spanId"}, …]}

``links`` only where a span has some.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections import defaultdict
from typing import TYPE_CHECKING

from otel_goprobe.export.decode import Link, Span, decode
from otel_goprobe.export.queued import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_goprobe.export.encode import Encoded
    from otel_goprobe.model import AttributeValue

_IN_THE_NAME = frozenset({"http.request.method", "http.route", "http.response.status_code"})
"""Attributes that a tree's line shows at its front."""

Line = list[tuple[str, str]]
"""Text and its style, in rich's words."""

_MAX_VALUE = 60
"""Characters of an attribute that a tree's line shows."""


class ConsoleSink:
    """Prints spans on a file descriptor, in colour if that is a terminal.

    Once nobody reads any more, spans are dropped, reason ``console_closed``.

    Args:
        json_lines: JSON lines instead of trees.
        fd: where to; standard output's own descriptor, because a print that blocks must not hold a lock that the
            interpreter wants at its end.
    """

    def __init__(self, *, json_lines: bool = False, fd: int = 1) -> None:
        self._json_lines = json_lines
        self._fd = fd
        self._in_colour = os.isatty(fd) and not json_lines
        self._gone = False

    @property
    def reader_gone(self) -> bool:
        """Whether the other end of the pipe is closed."""
        return self._gone

    def deliver(self, batch: Encoded) -> Outcome:
        """Print a batch."""
        if not self._gone:
            self._write(self._text(decode(batch.data)).encode("utf-8", "replace"))
        return Outcome(0, {"console_closed": batch.spans}) if self._gone else Outcome(batch.spans)

    def hasten(self, deadline: float) -> None:
        """Nothing to hurry."""

    def abort(self) -> None:
        """Nothing can wake a write to a pipe that isn't read; the thread is left to the interpreter's end."""

    def close(self) -> None:
        """Nothing is held: the descriptor is its owner's."""

    def _text(self, spans: Iterable[Span]) -> str:
        if self._json_lines:
            return "".join(f"{_json_line(span)}\n" for span in spans)
        return _coloured(_trees(spans)) if self._in_colour else _plain(_trees(spans))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO):
                raise
            self._gone = True


def _json_line(span: Span) -> str:
    return json.dumps(
        {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "parentSpanId": span.parent_span_id,
            "name": span.name,
            "kind": span.kind.name,
            "startTimeUnixNano": str(span.start_unix_ns),
            "endTimeUnixNano": str(span.end_unix_ns),
            "durationMs": span.duration_ns / 1e6,
            "status": "ERROR" if span.error else "UNSET",
            "scope": span.scope,
            "attributes": dict(span.attributes),
            "resource": dict(span.resource),
            **({"links": [_link(link) for link in span.links]} if span.links else {}),
        },
        ensure_ascii=False,
    )


def _link(link: Link) -> dict[str, str]:
    return {"traceId": link.trace_id, "spanId": link.span_id}


def _trees(spans: Iterable[Span]) -> Iterator[Line]:
    """Draw each trace of a batch: parents first, children indented, by start; ``…``: its parent isn't in the batch."""
    traces: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.start_unix_ns):
        traces[span.trace_id].append(span)
    for trace_id, members in traces.items():
        yield [(f"trace {trace_id}", "dim")]
        yield from _tree(members)


def _tree(members: list[Span]) -> Iterator[Line]:
    """Draw one trace; `members` are sorted by start."""
    here = {span.span_id for span in members}
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in members:
        children[span.parent_span_id if span.parent_span_id in here else ""].append(span)
    drawn: set[int] = set()
    todo = [(span, "", last) for span, last in _for_stack(children.pop("", []))]
    while todo:
        span, indent, last = todo.pop()
        drawn.add(id(span))
        yield [(indent + ("└─ " if last else "├─ "), "dim"), *_line(span, here)]
        deeper = indent + ("   " if last else "│  ")
        todo += [(child, deeper, last) for child, last in _for_stack(children.pop(span.span_id, []))]
    for span in members:  # a circle of parents has no root: it is no tree, but it is told
        if id(span) not in drawn:
            yield [("└─ ", "dim"), *_line(span, set())]


def _for_stack(siblings: list[Span]) -> list[tuple[Span, bool]]:
    """Pair siblings with whether each is the last; the first on top."""
    return [(span, place == 0) for place, span in enumerate(reversed(siblings))]


def _line(span: Span, here: set[str]) -> Line:
    status = span.attributes.get("http.response.status_code", "")
    colour = "red" if span.error else "yellow" if isinstance(status, int) and status >= 400 else "green"
    outcome = " ".join(filter(None, (str(status), "ERROR" if span.error else "")))
    rest = "  ".join(f"{key}={_short(value)}" for key, value in span.attributes.items() if key not in _IN_THE_NAME)
    links = ", ".join(f"{link.trace_id}/{link.span_id}" for link in span.links)
    parts = [
        ("…" if span.parent_span_id and span.parent_span_id not in here else "", "dim"),
        (_printable(span.service), "cyan"),
        (_printable(span.name), "bold"),
        (f"{span.duration_ns / 1e6:.3f} ms", ""),
        (outcome, colour),
        (rest, "dim"),
        (f"links={links}" if links else "", "dim"),
    ]
    shown = [(text, style) for text, style in parts if text]
    return [(text if place == len(shown) - 1 else f"{text}  ", style) for place, (text, style) in enumerate(shown)]


def _short(value: AttributeValue) -> str:
    text = _printable(str(value))
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def _printable(text: str) -> str:
    """Escape what a request could otherwise make a terminal do."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _plain(lines: Iterable[Line]) -> str:
    return "".join("".join(text for text, _ in line) + "\n" for line in lines)


def _coloured(lines: Iterable[Line]) -> str:
    from rich.console import Console  # noqa: PLC0415 - only for a terminal
    from rich.text import Text  # noqa: PLC0415 - the same

    console = Console(file=io.StringIO(), force_terminal=True, soft_wrap=True, highlight=False)
    with console.capture() as captured:
        for line in lines:
            console.print(Text.assemble(*line))
    return captured.get()
