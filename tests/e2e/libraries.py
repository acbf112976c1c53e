"""A library.toml (tests/go/NAME) and the spans of both sides -> what differs; called by test_libraries.py.

A library gets rows in docs/compatibility.md by having a library.toml: no list names it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from goprograms import OFFICIAL, TESTS, go_binary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from harness.receiver import Span

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
"""SpanKind of OTLP, and of the SDK in Go."""
BUILT = ("plain", "-s -w")
OLD_HTTP = {
    "http.method": "http.request.method",
    "http.scheme": "url.scheme",
    "http.status_code": "http.response.status_code",
    "http.url": "url.full",
    "http.client_ip": "client.address",
    "http.user_agent": "user_agent.original",
    "net.protocol.version": "network.protocol.version",
    "net.host.name": "server.address",
    "net.host.port": "server.port",
    "net.peer.name": "server.address",
    "net.peer.port": "server.port",
    "net.sock.peer.addr": "network.peer.address",
    "net.sock.peer.port": "network.peer.port",
}
"""The conventions' "HTTP semantic convention stability migration guide": old name -> today's."""


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of a library, and what it is built with."""

    version: str
    go: str
    require: tuple[str, ...] = ()
    """"PATH VERSION" of each module that the program imports, beside those of tests/go/official/shared.toml."""
    tags: str = ""
    """Build tags."""
    official: str = ""
    """Where it isn't the library's: what the spans are compared with."""


class Library(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A library.toml."""

    library: str
    official: str
    """The instrumentation that it is compared with."""
    versions: tuple[Version, ...]
    differences: dict[str, str] = {}
    """What differs, as `Comparison` says it, and why; those of tests/go/official/shared.toml come to it."""
    matched_by: str = "path"
    """What tells which spans are of the same call: ``path`` or, of calls one after another, their ``order``."""
    renamed: dict[str, str] = {}
    """Attributes that an old instrumentation calls by another name, beside those of HTTP."""
    arguments: tuple[str, ...] = ()
    """Of ``otel-goprobe run``."""


class _Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sdk: dict[str, tuple[str, ...]]
    differences: dict[str, str]


def _shared() -> _Shared:
    return msgspec.toml.decode((OFFICIAL / "shared.toml").read_bytes(), type=_Shared)


@dataclass(frozen=True, slots=True)
class Row:
    """A version of a library, built in one way."""

    name: str
    """Of its folder in tests/go."""
    version: Version
    built: str

    def __str__(self) -> str:
        return f"{self.name} {self.version.version} go{self.version.go} {self.built}"

    def executable(self) -> Path:
        """Return the path, building it first where it isn't in the cache."""
        version = self.version
        require = (*_shared().sdk.get(version.go, ()), *version.require)
        return go_binary(self.name, go=version.go, strip="-s" in self.built, require=require, tags=version.tags)


def declared() -> dict[str, Library]:
    """Return all libraries by the names of their folders."""
    files = sorted((TESTS / "go").glob("*/library.toml"))
    return {file.parent.name: msgspec.toml.decode(file.read_bytes(), type=Library) for file in files}


def rows(name: str, library: Library) -> list[Row]:
    """Return a library's rows."""
    return [Row(name, version, built) for version in library.versions for built in BUILT]


def explained(library: Library) -> dict[str, str]:
    """Return why something differs, by what differs."""
    return _shared().differences | library.differences


@dataclass(frozen=True, slots=True)
class Call:
    """A span of either side, in the same terms."""

    kind: str
    start: str
    """Orders the spans of one side."""
    span_id: str
    parent_span_id: str
    name: str
    status: str
    attributes: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Of the request, which has an id in it."""
        return self.attributes.get("url.path") or urlsplit(str(self.attributes.get("url.full", ""))).path


def ours(spans: Iterable[Span]) -> list[Call]:
    """Return the agent's spans."""
    return [
        Call(
            KINDS[span.kind],
            f"{span.start:020}",
            span.span_id,
            span.parent_span_id,
            span.name,
            "Error" if span.error else "Unset",
            span.attributes,
        )
        for span in spans
    ]


def officials(file: Path, renamed: Mapping[str, str]) -> list[Call]:
    """Return the spans that a program has written, its time zone being UTC; see stdouttrace."""
    found = []
    decoder, text = json.JSONDecoder(), file.read_text()
    while text.strip():
        span, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        found.append(
            Call(
                KINDS[span["SpanKind"]],
                span["StartTime"].rstrip("Z").ljust(len("2026-11-22T22:55:42.123456789"), "0"),
                span["SpanContext"]["SpanID"],
                span["Parent"]["SpanID"].removeprefix("0" * 16),
                span["Name"],
                span["Status"]["Code"],
                _today({pair["Key"]: pair["Value"]["Value"] for pair in span["Attributes"] or ()}, renamed),
            )
        )
    return found


def _today(attributes: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Give attributes today's names, and leave out empty texts, which say nothing."""
    names = OLD_HTTP | dict(renamed)
    found = {names.get(key, key): value for key, value in attributes.items()} | {
        key: value for key, value in attributes.items() if key not in names
    }
    found = {key: value for key, value in found.items() if value != ""}
    if "http.target" in found:
        path, _, query = found.pop("http.target").partition("?")
        found.setdefault("url.path", path)
        if query:
            found.setdefault("url.query", query)
    return found


@dataclass(slots=True)
class Comparison:
    """The spans of one program, side by side."""

    spans: int = 0
    attributes: int = 0
    """Compared, names, statuses and parents included."""
    differences: Counter[str] = field(default_factory=Counter)
    """``server http.route: only here``, ``client url.full: differs``, …: what and how, and how often."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first of each."""


def compare(official: Sequence[Call], agent: Sequence[Call], matched_by: str) -> Comparison:
    """Compare span by span and attribute by attribute.

    Raises:
        AssertionError: one side has a call that the other hasn't, or has it twice.
    """
    theirs, here = _by_key(official, matched_by), _by_key(agent, matched_by)
    assert theirs.keys() == here.keys(), f"only official: {theirs.keys() - here}; only here: {here.keys() - theirs}"
    key_of = {call.span_id: f"{kind} {key}" for side in (theirs, here) for (kind, key), call in side.items()}
    result = Comparison(spans=len(theirs))
    for (kind, key), one in theirs.items():
        other = here[kind, key]
        sides = [
            {
                **call.attributes,
                "name": call.name,
                "status": call.status,
                "parent": key_of.get(call.parent_span_id, call.parent_span_id),
            }
            for call in (one, other)
        ]
        for what in sorted(sides[0].keys() | sides[1].keys()):
            result.attributes += 1
            values = [side.get(what) for side in sides]
            if values[0] == values[1]:
                continue
            how = "only official" if what not in sides[1] else "differs" if what in sides[0] else "only here"
            difference = f"{kind} {what}: {how}"
            result.differences[difference] += 1
            result.examples.setdefault(difference, f"{key}: official {values[0]!r}, here {values[1]!r}")
    return result


def _by_key(calls: Sequence[Call], matched_by: str) -> dict[tuple[str, str], Call]:
    found: dict[tuple[str, str], Call] = {}
    seen: Counter[str] = Counter()
    for call in sorted(calls, key=lambda call: call.start):
        seen[call.kind] += 1
        key = (call.kind, call.path if matched_by == "path" else str(seen[call.kind]))
        assert key not in found, f"two spans are of {key}: {call} and {found[key]}"
        found[key] = call
    return found
