"""Network paths that were seen -> a policy file that allows them, as a person would write it; called by network.py.

What is alike is written once: three names or more below one domain, at the same ports, are ``*.domain``; three
addresses or more of one /24 (IPv6: /64), and of private networks three such of one /16, are that network; a port that
the kernel chose stands for all that it chooses from. A file that is there keeps its rules and its comments.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from otel_goprobe.errors import UsageError
from otel_goprobe.tools import network_policy
from otel_goprobe.tools.network_policy import IPV4, Network, NetworkPath, host_matches, is_host_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

ALIKE: Final = 3
"""So many of a kind are taken for examples of all of that kind."""
CHOSEN_PORTS: Final = (32768, 60999)
"""net.ipv4.ip_local_port_range as Linux has it by default (net/ipv4/af_inet.c, inet_init_net)."""
_TWO_LABEL_REGISTRIES: Final = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})
"""Second levels below which country domains sell names: co.uk, com.au, or.jp."""
SHARED_DOMAINS: Final = frozenset(
    {
        "amazonaws.com",
        "appspot.com",
        "azurewebsites.net",
        "cloudapp.net",
        "cloudfront.net",
        "github.io",
        "herokuapp.com",
        "netlify.app",
        "run.app",
        "svc.cluster.local",
        "cluster.local",
        "vercel.app",
        "windows.net",
        "workers.dev",
    }
)
"""Domains whose children belong to different people: the best known of the Public Suffix List's private part, and
Kubernetes' own, below which each namespace is someone else's."""

Ports = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What became of the paths."""

    services: int
    paths: int
    """Different ones."""
    known: int
    """Of these, allowed by what the file said before."""
    rules: int
    """Added or widened."""
    left: tuple[NetworkPath, ...]
    """Those that no rule can be written for: names that are none."""


def learn(paths: Iterable[NetworkPath], into: Path) -> LearnResult:
    """Write, or extend, a policy so that it allows these paths.

    Raises:
        UsageError: the file that is there is no policy, or can't be written.
    """
    document = network_policy.read(into) if into.exists() else CommentedMap()
    policy = network_policy.parse(document, into)
    by_service: dict[str, set[NetworkPath]] = defaultdict(set)
    distinct = set(paths)
    left = tuple(path for path in distinct if not _can_be_written(path))
    for path in distinct.difference(left):
        if not (policy.checks(path.service) and policy.allows(path)):
            by_service[path.service].add(path)
    services = document.get("services")
    if services is None:
        services = document["services"] = CommentedMap()
    rules = sum(_extend(services, service, found) for service, found in sorted(by_service.items()))
    known = len(distinct) - len(left) - sum(len(found) for found in by_service.values())
    result = LearnResult(len({path.service for path in distinct}), len(distinct), known, rules, left)
    if rules or not into.exists():
        _write(document, into)
    return result


def _can_be_written(path: NetworkPath) -> bool:
    if path.protocol == "unix":
        return path.unix[:1] in {"/", "@"}
    if path.kind == "connect" and not path.host:
        return bool(path.address)
    host = path.host.rstrip(".").lower()
    return path.kind == "listen" or (is_host_pattern(host) and "*" not in host and not IPV4.fullmatch(host))


def _extend(services: CommentedMap, service: str, paths: set[NetworkPath]) -> int:
    own = services.get(service)
    if own is None:
        own = services[service] = CommentedMap()
    connect = [path for path in paths if path.kind == "connect"]
    listen = [path for path in paths if path.kind == "listen"]
    added = _add(own, "connect", [*_hosts(connect), *_addresses(connect), *_unix(connect)])
    added += _add(own, "listen", [*_listening(listen), *_unix(listen)])
    patterns = [str(rule["host"]) for rule in own.get("connect") or () if "host" in rule]
    names = {path.host.rstrip(".").lower() for path in paths if path.kind == "name"}
    asked = [name for name in names if not any(host_matches(pattern, name) for pattern in patterns)]
    return added + _add_names(own, _domains(asked))


def _add(own: CommentedMap, key: str, rules: list[CommentedMap]) -> int:
    """Append rules to a list of a service, or widen the ports of the rule that it has for the same."""
    if not rules:
        return 0
    there = own.get(key)
    if there is None:
        there = own[key] = CommentedSeq()
    for rule in rules:
        same = next((old for old in there if _but_ports(old) == _but_ports(rule) and "ports" in old), None)
        if same is not None and "ports" in rule:
            ports = {str(port): port for port in (*same["ports"], *rule["ports"])}
            same["ports"] = _in_line([*ports.values()])
        else:
            there.append(rule)
    return len(rules)


def _but_ports(rule: CommentedMap) -> dict[str, object]:
    return {key: value for key, value in rule.items() if key != "ports"}


def _add_names(own: CommentedMap, names: list[str]) -> int:
    if names:
        there = own.get("names")
        if there is None:
            there = own["names"] = CommentedSeq()
        there.extend(names)
    return len(names)


def _rule(key: str, value: str, ports: Ports = (), protocols: frozenset[str] = frozenset()) -> CommentedMap:
    rule = CommentedMap({key: value})
    if ports:
        rule["ports"] = _in_line(_ranges(ports))
    if len(protocols) == 1:
        (rule["protocol"],) = protocols
    return rule


def _in_line(values: list[int | str]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _ranges(ports: Ports) -> list[int | str]:
    """Return ports and ranges: three or more in a row, or three or more of those that the kernel chooses, are one."""
    lowest, highest = CHOSEN_PORTS
    chosen = [port for port in ports if lowest <= port <= highest]
    rest = sorted(set(ports) - set(chosen) if len(set(chosen)) >= ALIKE else set(ports))
    runs: list[list[int]] = []
    for port in rest:
        if runs and port == runs[-1][-1] + 1:
            runs[-1].append(port)
        else:
            runs.append([port])
    found: list[int | str] = []
    for run in runs:
        found += [f"{run[0]}-{run[-1]}"] if len(run) >= ALIKE else run
    return [*found, f"{lowest}-{highest}"] if len(set(chosen)) >= ALIKE else found


def _by_destination(
    found: Iterable[tuple[str, NetworkPath]],
) -> list[tuple[Ports, frozenset[str], list[str]]]:
    """Return what has the same ports, by the same protocols, together: (ports, protocols, destinations)."""
    seen: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for destination, path in found:
        seen[destination][path.protocol].add(path.port)
    alike: dict[tuple[Ports, frozenset[str]], list[str]] = defaultdict(list)
    for destination, ports_of in sorted(seen.items()):
        by_ports: dict[Ports, set[str]] = defaultdict(set)
        for protocol, numbers in ports_of.items():
            by_ports[tuple(sorted(numbers))].add(protocol)
        for ports, protocols in by_ports.items():
            alike[ports, frozenset(protocols)].append(destination)
    ordered = sorted(alike.items(), key=lambda item: (item[1], item[0][0]))
    return [(ports, protocols, destinations) for (ports, protocols), destinations in ordered]


def _hosts(paths: list[NetworkPath]) -> list[CommentedMap]:
    named = ((path.host.rstrip(".").lower(), path) for path in paths if path.host)
    return [
        _rule("host", pattern, ports, protocols)
        for ports, protocols, hosts in _by_destination(named)
        for pattern in _domains(hosts)
    ]


def _domains(hosts: list[str]) -> list[str]:
    """Return patterns for names; of the domains that hold enough of them the longest."""
    below: dict[str, set[str]] = defaultdict(set)
    for host in hosts:
        labels = host.split(".")
        for start in range(1, len(labels) - 1):
            domain = ".".join(labels[start:])
            if not _is_shared(domain):
                below[domain].add(host)
    found, taken = [], set[str]()
    for domain in sorted(below, key=lambda domain: (-domain.count("."), domain)):
        left = below[domain] - taken
        if len(left) >= ALIKE:
            found.append(f"*.{domain}")
            taken |= left
    return sorted([*found, *(host for host in hosts if host not in taken)])


def _is_shared(domain: str) -> bool:
    labels = domain.split(".")
    registry = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _TWO_LABEL_REGISTRIES
    return registry or domain in SHARED_DOMAINS


def _addresses(paths: list[NetworkPath]) -> list[CommentedMap]:
    bare = ((path.address, path) for path in paths if path.address and not path.host)
    return [
        _rule("cidr", str(network), ports, protocols)
        for ports, protocols, addresses in _by_destination(bare)
        for network in _networks(addresses)
    ]


def _networks(addresses: list[str]) -> list[Network]:
    plain = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    ips = [getattr(ip, "ipv4_mapped", None) or ip for ip in plain]
    networks: set[Network] = {ipaddress.ip_network(ip) for ip in ips}
    for version, prefix, private in ((4, 24, False), (6, 64, False), (4, 16, True)):
        above: dict[Network, set[Network]] = defaultdict(set)
        for network in networks:
            if network.version == version and network.prefixlen > prefix and (network.is_private or not private):
                above[network.supernet(new_prefix=prefix)].add(network)
        for wider, narrower in above.items():
            if len(narrower) >= ALIKE:
                networks = networks - narrower | {wider}
    return sorted(networks, key=lambda network: (network.version, network))


def _unix(paths: list[NetworkPath]) -> list[CommentedMap]:
    """Return rules for sockets; numbers in names that differ, and three or more of one folder, are a ``*``."""
    sockets = {path.unix for path in paths if path.unix}
    by_shape: dict[str, set[str]] = defaultdict(set)
    for socket in sockets:
        by_shape[re.sub(r"\d+", "*", _escaped(socket))].add(socket)
    patterns = {shape if len(like) > 1 else _escaped(next(iter(like))) for shape, like in by_shape.items()}
    by_folder: dict[str, set[str]] = defaultdict(set)
    for pattern in patterns:
        folder, slash, _ = pattern.rpartition("/")
        if slash and folder:
            by_folder[folder].add(pattern)
    for folder, those in by_folder.items():
        if len(those) >= ALIKE:
            patterns = patterns - those | {f"{folder}/*"}
    return [_rule("unix", pattern) for pattern in sorted(patterns)]


def _escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _listening(paths: list[NetworkPath]) -> list[CommentedMap]:
    lowest, highest = CHOSEN_PORTS
    by_protocol: dict[str, set[int]] = defaultdict(set)
    for path in paths:
        if path.protocol != "unix":
            by_protocol[path.protocol].add(path.port)
    rules = []
    for protocol, ports in sorted(by_protocol.items()):
        fixed = tuple(sorted(port for port in ports if not lowest <= port <= highest))
        chosen = [f"{lowest}-{highest}"] if len(fixed) < len(ports) else []
        rule = CommentedMap({"ports": _in_line([*_ranges(fixed), *chosen]), "protocol": protocol})
        rules.append(rule)
    return rules


def _write(document: CommentedMap, into: Path) -> None:
    """Replace the file at once, or leave it as it is."""
    text = StringIO()
    network_policy.yaml().dump(document, text)
    temporary = ""
    try:
        target = into.resolve()
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, delete=False) as file:
            temporary = file.name
            file.write(text.getvalue())
        Path(temporary).chmod(mode)
        os.replace(temporary, target)  # noqa: PTH105 - Path.replace is no clearer
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UsageError(f"{into}: {error.strerror}", "name a file in a folder that you may write to") from error
