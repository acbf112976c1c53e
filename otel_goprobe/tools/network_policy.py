"""A policy file -> whether a network path may be: called by network.py for what it sees, by network_learn.py.

The file is YAML::

    services:
      checkout:                       # a service.name; "*" is every service
        connect:                      # destinations, each by one of host, cidr, unix
          - host: "*.payments.example.com"
            ports: [443]              # none: any port
          - cidr: 10.0.0.0/8
            ports: [5432, 6000-6010]
            protocol: tcp             # or udp; none: both
          - unix: /run/postgresql/*   # a glob; an abstract socket begins with @
        listen:
          - ports: [8080]
          - unix: /run/checkout.sock
        names: ["*.example.com"]      # questions for DNS, besides the hosts above

A host pattern's ``*`` stands for one or more labels at the front, as in a certificate it would for one. A host rule is
about connections whose name is known; one by a bare address needs a ``cidr``. A service that neither its name nor ``*``
stands for isn't checked.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kind = Literal["connect", "listen", "name"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4: Final = re.compile(r"[0-9]+(\.[0-9]+){3}")
"""What looks like an address where a name should be."""
EVERY_SERVICE: Final = "*"
_DESTINATIONS: Final = ("host", "cidr", "unix")
_PROTOCOLS: Final = ("tcp", "udp")
_MAX_BYTES: Final = 16 << 20
"""Of a policy file: a hundred times what 1,000 services with 20 destinations each take."""
_LABEL: Final = re.compile(r"[^\s.*/:@\\]{1,63}")
"""Wider than RFC 1123: programs do ask for names that nobody could register; what is left out are mistakes."""


@dataclass(frozen=True, slots=True)
class NetworkPath:
    """One way over which a service talks, or wants to."""

    service: str
    kind: Kind
    protocol: str
    """``tcp``, ``udp`` or ``unix``; for a name empty."""
    host: str = ""
    """The name that was asked for, if it is known."""
    address: str = ""
    """Textual IP address."""
    port: int = 0
    unix: str = ""
    """Path of a Unix socket; ``@`` begins an abstract one."""

    def __str__(self) -> str:
        if self.kind == "name":
            return f"the name {self.host}"
        if self.protocol == "unix":
            return f"unix:{self.unix}"
        address = f"[{self.address}]" if ":" in self.address else self.address
        named = f"{self.host}:{self.port}" if self.host else f"{address}:{self.port}"
        return f"{named}/{self.protocol}" + (f" ({address})" if self.host and self.address else "")


@dataclass(frozen=True, slots=True)
class Rule:
    """Destinations, or listening sockets, that are allowed: all that is said must match."""

    host: str = ""
    """Lower case, without a final dot; ``*`` or ``*.suffix`` are patterns."""
    cidr: Network | None = None
    unix: str = ""
    ports: tuple[tuple[int, int], ...] = ()
    """Ranges, both ends in them; none: any port."""
    protocol: str = ""

    def allows(self, path: NetworkPath) -> bool:
        """Tell whether it stands for this path, whose kind the caller has looked at."""
        if self.unix or path.protocol == "unix":
            return bool(self.unix and path.protocol == "unix" and fnmatch.fnmatchcase(path.unix, self.unix))
        if self.protocol and self.protocol != path.protocol:
            return False
        if self.ports and not any(first <= path.port <= last for first, last in self.ports):
            return False
        if self.host:
            return bool(path.host) and host_matches(self.host, path.host)
        return self.cidr is None or address_in(self.cidr, path.address)


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """What one service may do."""

    connect: tuple[Rule, ...] = ()
    listen: tuple[Rule, ...] = ()
    names: tuple[str, ...] = ()

    def allows(self, path: NetworkPath) -> bool:
        """Tell whether a rule stands for this path."""
        if path.kind == "name":
            patterns = (*self.names, *(rule.host for rule in self.connect if rule.host))
            return any(host_matches(pattern, path.host) for pattern in patterns)
        return any(rule.allows(path) for rule in (self.connect if path.kind == "connect" else self.listen))


@dataclass(frozen=True, slots=True)
class Policy:
    """What services may do, by their names."""

    services: dict[str, ServicePolicy]

    def _of(self, service: str) -> Iterator[ServicePolicy]:
        for name in (service, EVERY_SERVICE):
            if name in self.services:
                yield self.services[name]

    def checks(self, service: str) -> bool:
        """Tell whether it says anything about a service."""
        return any(True for _ in self._of(service))

    def allows(self, path: NetworkPath) -> bool:
        """Tell whether a path is allowed; one of a service that isn't checked is."""
        return not self.checks(path.service) or any(policy.allows(path) for policy in self._of(path.service))

    def why_not(self, path: NetworkPath) -> str:
        """Return a finding's sentence, given a path that isn't allowed."""
        if path.kind == "listen":
            what = f"{path.service} listens on {path}"
        elif path.kind == "name":
            what = f"{path.service} asks for {path}"
        else:
            what = f"{path.service} connects to {path}"
        return f"{what}, which the policy doesn't allow"


def is_host_pattern(host: str) -> bool:
    """Tell whether a text, in lower case and without a final dot, can stand as ``host`` or in ``names``."""
    rest = host.removeprefix("*.")
    return host == "*" or (len(rest) <= 253 and all(_LABEL.fullmatch(label) for label in rest.split(".")))


@functools.lru_cache(maxsize=65536)
def host_matches(pattern: str, host: str) -> bool:
    """Tell whether a host pattern stands for a name.

    >>> host_matches("*.example.com", "a.b.example.com"), host_matches("*.example.com", "example.com")
    (True, False)
    """
    host = host.rstrip(".").lower()
    if pattern == "*":
        return bool(host)
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return host == pattern


@functools.lru_cache(maxsize=65536)
def address_in(network: Network, address: str) -> bool:
    """Tell whether a textual address is in a network; an IPv4 address in IPv6's form is an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip) in network


def yaml() -> YAML:
    """Return what reads a policy with the lines of its values, and writes it with its comments."""
    reader = YAML(typ="rt")
    reader.indent(mapping=2, sequence=4, offset=2)
    reader.width = 120
    return reader


def read(file: Path) -> CommentedMap:
    """Return the file's document, an empty mapping for an empty file.

    Raises:
        UsageError: it can't be read, isn't YAML, or is no mapping.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{file} has more than {_MAX_BYTES >> 20} MiB", "this is no policy")
        document = yaml().load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", "otel-goprobe network --learn FILE writes one") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: byte {error.start} isn't UTF-8", "a policy is text") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UsageError(f"{file}{where}: {error.problem or error.context}", "mend the YAML there") from error
    except (YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{file}: {error}", "mend the YAML") from error
    if document is None:
        return CommentedMap()
    if not isinstance(document, CommentedMap):
        raise UsageError(f"{file}:1:1: a policy is a mapping with the key services", "see docs/tools.md")
    return document


def load(file: Path) -> Policy:
    """Read a policy.

    Raises:
        UsageError: with the file, the line and the field.
    """
    return parse(read(file), file)


def parse(document: CommentedMap, file: Path) -> Policy:
    """Turn what `read` returned into a policy.

    Raises:
        UsageError: with the file, the line and the field.
    """
    return _Reader(file).policy(document)


class _Reader:
    """Turns a document into a `Policy`, knowing where it is."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def _wrong(self, at: tuple[int, int], field: str, what: str, remedy: str) -> UsageError:
        line, column = at
        return UsageError(f"{self._file}:{line + 1}:{column + 1}: {field}: {what}", remedy)

    def _mapping(self, value: object, at: tuple[int, int], field: str, keys: tuple[str, ...] = ()) -> CommentedMap:
        if value is None:
            return CommentedMap()
        if not isinstance(value, CommentedMap):
            raise self._wrong(
                at, field, f"{_shown(value)} is no mapping", f"write {', '.join(keys) or 'names'} below it"
            )
        for key in value:
            if keys and key not in keys:
                close = difflib.get_close_matches(str(key), keys, 1)
                meant = f"did you mean {close[0]}?" if close else f"write one of {', '.join(keys)}"
                raise self._wrong(value.lc.key(key), field, f"{_shown(key)} is no field", meant)
        return value

    def _sequence(self, value: object, at: tuple[int, int], field: str) -> list[tuple[Any, tuple[int, int], str]]:
        """Return items, where each is, and its field's name."""
        if value is None:
            return []
        if not isinstance(value, CommentedSeq):
            raise self._wrong(at, field, f"{_shown(value)} is no list", "write it as a list: [a, b], or - a")
        return [(item, value.lc.item(index), f"{field}[{index}]") for index, item in enumerate(value)]

    def policy(self, document: CommentedMap) -> Policy:
        top = self._mapping(document, (0, 0), "policy", ("services",))
        services = self._mapping(top.get("services"), _at(top, "services"), "services")
        found = {}
        for name, value in services.items():
            field = f"services.{name}"
            if not isinstance(name, str) or not name:
                raise self._wrong(services.lc.key(name), "services", f"{_shown(name)} is no name", "quote it")
            found[name] = self._service(value, services.lc.value(name), field)
        return Policy(found)

    def _service(self, value: object, at: tuple[int, int], field: str) -> ServicePolicy:
        mapping = self._mapping(value, at, field, ("connect", "listen", "names"))
        rules = {
            key: tuple(
                self._rule(item, where, name, listens=key == "listen")
                for item, where, name in self._sequence(mapping.get(key), _at(mapping, key), f"{field}.{key}")
            )
            for key in ("connect", "listen")
        }
        names = self._sequence(mapping.get("names"), _at(mapping, "names"), f"{field}.names")
        return ServicePolicy(**rules, names=tuple(self._host(item, where, name) for item, where, name in names))

    def _rule(self, value: object, at: tuple[int, int], field: str, *, listens: bool) -> Rule:
        mapping = self._mapping(value, at, field, (*_DESTINATIONS[listens:], "ports", "protocol"))
        given = [key for key in _DESTINATIONS if key in mapping]
        if len(given) > 1:
            raise self._wrong(
                mapping.lc.key(given[1]), field, f"{given[0]} and {given[1]} at once", "make it two rules"
            )
        if not given and not (listens and "ports" in mapping):
            remedy = "write ports" if listens else "write host, cidr or unix"
            raise self._wrong(at, field, "it doesn't say what it allows", remedy)
        if "unix" in mapping and len(mapping) > 1:
            other = next(key for key in mapping if key != "unix")
            raise self._wrong(mapping.lc.key(other), field, f"a Unix socket has no {other}", "leave it out")
        return Rule(
            host=self._host(mapping["host"], _at(mapping, "host"), f"{field}.host") if "host" in mapping else "",
            cidr=self._cidr(mapping["cidr"], _at(mapping, "cidr"), f"{field}.cidr") if "cidr" in mapping else None,
            unix=self._unix(mapping["unix"], _at(mapping, "unix"), f"{field}.unix") if "unix" in mapping else "",
            ports=self._ports(mapping.get("ports"), _at(mapping, "ports"), f"{field}.ports"),
            protocol=self._protocol(mapping.get("protocol"), _at(mapping, "protocol"), f"{field}.protocol"),
        )

    def _host(self, value: object, at: tuple[int, int], field: str) -> str:
        host = value.rstrip(".").lower() if isinstance(value, str) else ""
        if not is_host_pattern(host):
            remedy = "write a name such as api.example.com, or *.example.com; an address goes into cidr"
            raise self._wrong(at, field, f"{_shown(value)} is no host pattern", remedy)
        if IPV4.fullmatch(host):
            raise self._wrong(at, field, f"{host} is an address", f"write cidr: {host}/32")
        return host

    def _cidr(self, value: object, at: tuple[int, int], field: str) -> Network:
        if isinstance(value, str):
            try:
                return ipaddress.ip_network(value)
            except ValueError as error:
                remedy = "write it as 10.0.0.0/8 or fd00::/8"
                with contextlib.suppress(ValueError):
                    remedy = f"did you mean {ipaddress.ip_network(value, strict=False)}?"
                raise self._wrong(at, field, str(error), remedy) from error
        raise self._wrong(at, field, f"{_shown(value)} is no network", "write it as 10.0.0.0/8 or fd00::/8")

    def _unix(self, value: object, at: tuple[int, int], field: str) -> str:
        if isinstance(value, str) and value[:1] in {"/", "@", "*"}:
            return value
        raise self._wrong(at, field, f"{_shown(value)} is no socket's path", "it begins with / (or @: an abstract one)")

    def _ports(self, value: object, at: tuple[int, int], field: str) -> tuple[tuple[int, int], ...]:
        ranges = []
        for item, where, name in self._sequence(value, at, field):
            found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(item)) if not isinstance(item, bool) else None
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
            if not 1 <= first <= last <= 0xFFFF:
                remedy = "a port is a number from 1 to 65535, a range such as 8000-8010"
                raise self._wrong(where, name, f"{_shown(item)} is no port", remedy)
            ranges.append((first, last))
        return tuple(ranges)

    def _protocol(self, value: object, at: tuple[int, int], field: str) -> str:
        if value is None:
            return ""
        if value not in _PROTOCOLS:
            raise self._wrong(at, field, f"{_shown(value)} is no protocol", f"write {' or '.join(_PROTOCOLS)}")
        return str(value)


def _at(mapping: CommentedMap, key: str) -> tuple[int, int]:
    """Return where a value is, or where it would be; from 0."""
    if key in mapping:
        line, column = mapping.lc.value(key)
        return line, column
    return mapping.lc.line or 0, mapping.lc.col or 0


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
