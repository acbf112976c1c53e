"""The text of ``OTEL_*`` variables -> typed values; pure, called by config.py and by whoever reads a target's.

The specification's rules (configuration/sdk-environment-variables and protocol/exporter): a variable that is empty
counts as unset; an unknown name or a malformed number is warned about and ignored; names ignore case. What would send
spans to the wrong place (endpoint, headers, certificates) is an error instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AppendPath = Literal["always", "never", "to no path"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: RFC 9110, section 5.6.2."""
_FOLLOWED: Final = ("tracecontext", "b3", "b3multi")
"""Propagators whose incoming headers are followed."""
_HEADER_TEXT: Final = re.compile(r"[\t -~]*")
"""What gRPC and HTTP both carry in a header's value: printable ASCII."""


def parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Split ``key=value,key=value``, the form of OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS.

    Keys and values are percent-decoded as W3C Baggage has it: octets that aren't UTF-8 become U+FFFD. A key that comes
    twice keeps its last value and its first place. Members that are empty (a comma too many) are skipped.

    Raises:
        ValueError: a member isn't ``key=value``. It is named by its number alone, for it may hold a secret.
    """
    members = text.split(",")
    pairs: dict[str, str] = {}
    for number, member in enumerate(members, start=1):
        if not member.strip():
            continue
        key, separator, value = member.partition("=")
        key = unquote(key.strip())
        if not separator or not key:
            raise ValueError(f"member {number} of {len(members)} is not key=value")
        pairs[key] = unquote(value.strip())
    return tuple(pairs.items())


def parse_headers(text: str, source: str) -> tuple[tuple[str, str], ...]:
    """Split a list of headers; names in lower case, which gRPC demands and HTTP doesn't mind.

    Raises:
        UsageError: a member can't be a header; `source` and the header's name are in it, its value is not.
    """
    remedy = "write name=value,name=value with values percent-encoded, such as authorization=Bearer%20TOKEN"
    try:
        pairs = parse_pairs(text)
    except ValueError as error:
        raise UsageError(f"{source}: {error}", remedy) from None
    for name, value in pairs:
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"{source}: {name!r} can't be the name of a header", remedy)
        if not _HEADER_TEXT.fullmatch(value):
            raise UsageError(f"{source}: the value of {name!r} holds characters that no header may", remedy)
    return tuple({name.lower(): value for name, value in pairs}.items())


def http_endpoint(text: str, source: str, path: str, *, append: AppendPath) -> str:
    """Check the URL of an OTLP/HTTP receiver; `append` says when `path` goes behind its own.

    Raises:
        UsageError: it is malformed; `source` names the variable or flag.
    """
    url = _split_url(text, source)
    if append == "always" or (append == "to no path" and url.path in {"", "/"}):
        url = url._replace(path=url.path.rstrip("/") + path)
    return urlunsplit(url)


def grpc_endpoint(text: str, source: str, *, insecure: bool) -> str:
    """Check the URL of an OTLP/gRPC receiver -> ``scheme://host:port``; a path means nothing to gRPC and is cut off.

    Without a scheme, ``host:port`` gets ``http`` if `insecure` and ``https`` otherwise; the port is 4317 by default.

    Raises:
        UsageError: it is malformed; `source` names the variable or flag.
    """
    url = _split_url(text if "://" in text else f"{'http' if insecure else 'https'}://{text}", source)
    if url.port is None:
        url = url._replace(netloc=f"{url.netloc.rstrip(':')}:4317")
    return urlunsplit((url.scheme, url.netloc, "", "", ""))


def _split_url(text: str, source: str) -> SplitResult:
    remedy = (
        "write scheme, host and port, such as http://localhost:4318 (http/protobuf) or http://localhost:4317 (grpc)"
    )
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise UsageError(f"{source}: {text!r} holds a space or a control character", remedy)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise UsageError(f"{source}: {text!r} is no URL ({error})", remedy) from None
    if url.scheme not in {"http", "https"}:
        raise UsageError(f"{source}: {text!r} doesn't begin with http:// or https://", remedy)
    if not url.hostname:
        raise UsageError(f"{source}: {text!r} names no host", remedy)
    if port == 0:
        raise UsageError(f"{source}: {text!r} has port 0", remedy)
    return url


@dataclass(slots=True)
class Environment:
    """Variables, read by the specification's rules; what is ignored is said in `warnings`."""

    variables: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """The variable without surrounding blanks; empty where it is unset."""
        return self.variables.get(name, "").strip()

    def otlp(self, option: str, telemetry: str) -> tuple[str, str]:
        """Name and text of OTEL_EXPORTER_OTLP_<telemetry>_<option>, else of OTEL_EXPORTER_OTLP_<option>."""
        name = f"OTEL_EXPORTER_OTLP_{telemetry}_{option}"
        if not self.text(name):
            name = f"OTEL_EXPORTER_OTLP_{option}"
        return name, self.text(name)

    def choice(self, name: str, choices: Iterable[str], default: str) -> str:
        """One of `choices`, which are in lower case; anything else is warned about."""
        text = self.text(name)
        if not text:
            return default
        if text.lower() in choices:
            return text.lower()
        self.warnings.append(f"{name}={text} is none of {', '.join(choices)}: using {default}")
        return default

    def choices(self, name: str, choices: Iterable[str]) -> tuple[str, ...]:
        """Those of `choices`, which are in lower case, that a list with commas names; others are warned about."""
        names = [text.strip().lower() for text in self.text(name).split(",") if text.strip()]
        for text in names:
            if text not in choices:
                self.warnings.append(f"{name}: {text} is none of {', '.join(choices)}: ignored")
        return tuple(text for text in names if text in choices)

    def propagators(self) -> tuple[str, ...]:
        """Names in OTEL_PROPAGATORS that something is done for: ``tracecontext``, the default, ``b3``, ``b3multi``.

        ``baggage`` needs nothing done: it passes through the program untouched.
        """
        text = self.text("OTEL_PROPAGATORS") or "tracecontext,baggage"
        names = dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip())
        for name in names:
            if name not in {*_FOLLOWED, "baggage", "none"}:
                self.warnings.append(f"OTEL_PROPAGATORS: {name} is not supported: ignored")
        return () if "none" in names else tuple(name for name in names if name in _FOLLOWED)

    def boolean(self, name: str) -> bool:
        """True for ``true``; anything but ``true`` and ``false`` is warned about and False."""
        return self.choice(name, ("true", "false"), "false") == "true"

    def integer(self, name: str, minimum: int) -> int | None:
        """A decimal number; None where it is unset, and with a warning where it is malformed or below `minimum`."""
        text = self.text(name)
        if not text:
            return None
        if re.fullmatch(r"[0-9]{1,18}", text) and int(text) >= minimum:
            return int(text)
        self.warnings.append(f"{name}={text} is no whole number from {minimum} on: ignored")
        return None

    def seconds(self, name: str, minimum_ms: int, default: float) -> float:
        """A number of milliseconds, in seconds."""
        milliseconds = self.integer(name, minimum_ms)
        return default if milliseconds is None else milliseconds / 1000

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """``key=value`` members; one that is malformed makes the whole variable count as unset, with a warning."""
        try:
            return parse_pairs(self.text(name))
        except ValueError as error:
            self.warnings.append(f"{name}: {error}: ignored")
            return ()

    def file(self, option: str, telemetry: str) -> str:
        """Path of a readable file from OTEL_EXPORTER_OTLP_[<telemetry>_]<option>; empty where it is unset.

        Raises:
            UsageError: it can't be read.
        """
        name, path = self.otlp(option, telemetry)
        if path:
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                remedy = "name a PEM file that this user may read, or unset the variable"
                raise UsageError(f"{name}: {path} can't be read ({error.strerror})", remedy) from None
        return path


def parse_size(text: str) -> int:
    """Bytes from ``4194304``, ``4MiB``, ``4M`` or ``512KiB``; K, M and G count in powers of 1024.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"([0-9]{1,15})\s*(?:([KMG])(?:iB)?)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no size such as 4MiB")
    number, unit = match.groups()
    return int(number) << 10 * " KMG".index((unit or " ").upper())


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def parse_duration(text: str) -> float:
    """Read ``500ms``, ``30s``, ``10m``, ``1h``, or a number of seconds.

    Raises:
        ValueError: it is none of these, or 0.
    """
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is no length of time such as 500ms, 30s or 10m")
    return seconds
