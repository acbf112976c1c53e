"""A policy: what it allows, and where its mistakes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_goprobe.errors import UsageError
from otel_goprobe.tools.network_policy import NetworkPath, host_matches, load

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
services:
  checkout:
    connect:
      - host: "*.payments.example.com"
        ports: [443]
      - host: Db.Internal.
      - cidr: 10.0.0.0/8
        ports: [5432, 6000-6010]
        protocol: tcp
      - cidr: fd00::/8
      - unix: /run/postgresql/*
      - unix: "@session"
    listen:
      - ports: [8080]
      - cidr: 127.0.0.0/8
        ports: [6060]
      - unix: /run/checkout.sock
    names: [metrics.example.com]
  "*":
    connect:
      - cidr: 127.0.0.53/32
        ports: [53]
"""


def path(text: str) -> NetworkPath:
    """``connect tcp api.example.com 10.0.0.1 443`` with ``-`` for what there isn't; ``connect unix /x``; ``name x``."""
    kind, *rest = text.split()
    if kind == "name":
        return NetworkPath("checkout", "name", "", host=rest[0])
    if rest[0] == "unix":
        return NetworkPath("checkout", kind, "unix", unix=rest[1])  # type: ignore[arg-type] # as the test says
    protocol, host, address, port = (part.replace("-", "") if part == "-" else part for part in rest)
    return NetworkPath("checkout", kind, protocol, host=host, address=address, port=int(port))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("connect tcp eu.payments.example.com 9.9.9.9 443", True),
        ("connect tcp a.eu.payments.example.com 9.9.9.9 443", True),
        ("connect tcp EU.Payments.Example.COM. 9.9.9.9 443", True),
        ("connect tcp payments.example.com 9.9.9.9 443", False),
        ("connect tcp evilpayments.example.com 9.9.9.9 443", False),
        ("connect tcp eu.payments.example.com 9.9.9.9 80", False),
        ("connect tcp - 9.9.9.9 443", False),
        ("connect tcp db.internal 9.9.9.9 1", True),
        ("connect udp db.internal 9.9.9.9 65535", True),
        ("connect tcp - 10.255.0.1 5432", True),
        ("connect tcp - ::ffff:10.255.0.1 5432", True),
        ("connect tcp evil.example.org 10.1.1.1 6010", True),
        ("connect tcp - 10.1.1.1 6011", False),
        ("connect udp - 10.1.1.1 5432", False),
        ("connect tcp - 11.0.0.1 5432", False),
        ("connect tcp - fd12::1 9", True),
        ("connect tcp - fe80::1%eth0 9", False),
        ("connect tcp - nonsense 9", False),
        ("connect unix /run/postgresql/.s.PGSQL.5432", True),
        ("connect unix /run/docker.sock", False),
        ("connect unix @session", True),
        ("connect udp - 127.0.0.53 53", True),
        ("listen tcp - :: 8080", True),
        ("listen tcp - 127.0.0.1 6060", True),
        ("listen tcp - 0.0.0.0 6060", False),
        ("listen unix /run/checkout.sock", True),
        ("listen unix /run/postgresql/x", False),
        ("name metrics.example.com", True),
        ("name db.internal", True),
        ("name eu.payments.example.com.", True),
        ("name exfiltrate.example.org", False),
    ],
)
def test_what_is_allowed(tmp_path: Path, text: str, *, allowed: bool) -> None:
    """Host patterns, networks, ports, protocols, Unix sockets, listening, names."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    assert load(file).allows(path(text)) is allowed


def test_services_that_the_policy_does_not_name(tmp_path: Path) -> None:
    """`*` is every service; without it a service that isn't named isn't checked."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    other = NetworkPath("other", "connect", "tcp", address="9.9.9.9", port=1)
    assert load(file).checks("other")
    assert not load(file).allows(other)
    file.write_text(POLICY[: POLICY.index('  "*"')])
    assert not load(file).checks("other")
    assert load(file).allows(other)


def test_a_service_without_rules_may_do_nothing(tmp_path: Path) -> None:
    """An entry that is empty is a policy, an empty file none."""
    file = tmp_path / "policy.yaml"
    file.write_text("services:\n  checkout:\n")
    assert not load(file).allows(path("name x"))
    file.write_text("")
    assert load(file).services == {}


def test_findings_say_what_and_where() -> None:
    """The sentence holds service, name, port, address."""
    from otel_goprobe.tools.network_policy import Policy  # noqa: PLC0415 - beside its only use

    policy = Policy({})
    assert policy.why_not(path("connect tcp evil.example.org 9.9.9.9 443")) == (
        "checkout connects to evil.example.org:443/tcp (9.9.9.9), which the policy doesn't allow"
    )
    assert policy.why_not(path("listen tcp - :: 99")).startswith("checkout listens on [::]:99/tcp,")
    assert policy.why_not(path("connect unix /x")).startswith("checkout connects to unix:/x,")
    assert policy.why_not(path("name a.b")).startswith("checkout asks for the name a.b,")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: [1]", ":1:11: services: [1] is no mapping"),
        ("- 1", ":1:1: a policy is a mapping"),
        ("service: {}", ":1:1: policy: 'service' is no field: did you mean services?"),
        ("services:\n  a:\n    conect: []", ":3:5: services.a: 'conect' is no field: did you mean connect?"),
        ("services:\n  a: 3", ":2:6: services.a: 3 is no mapping"),
        ("services:\n  1: {}", ":2:3: services: 1 is no name"),
        ("services:\n  a:\n    connect: 10.0.0.0/8", ":3:14: services.a.connect: '10.0.0.0/8' is no list"),
        (
            "services:\n  a:\n    connect:\n      - cidr: 10.0.0.1/8",
            ":4:15: services.a.connect[0].cidr: 10.0.0.1/8 has host bits set: did you mean 10.0.0.0/8?",
        ),
        ("services:\n  a:\n    connect: [{host: 10.0.0.1}]", "is an address: write cidr: 10.0.0.1/32"),
        ("services:\n  a:\n    connect: [{host: 'https://x'}]", "services.a.connect[0].host: 'https://x' is no host"),
        ("services:\n  a:\n    connect: [{host: 'a.*.b'}]", "is no host pattern"),
        ("services:\n  a:\n    connect: [{host: a, ports: [70000]}]", ".ports[0]: 70000 is no port"),
        ("services:\n  a:\n    connect: [{host: a, ports: [90-80]}]", ".ports[0]: '90-80' is no port"),
        ("services:\n  a:\n    connect: [{host: a, ports: [true]}]", ".ports[0]: True is no port"),
        ("services:\n  a:\n    connect: [{host: a, ports: 80}]", ".ports: 80 is no list"),
        ("services:\n  a:\n    connect: [{host: a, protocol: icmp}]", "'icmp' is no protocol: write tcp or udp"),
        ("services:\n  a:\n    connect: [{host: a, cidr: 10.0.0.0/8}]", "host and cidr at once"),
        ("services:\n  a:\n    connect: [{unix: /x, ports: [1]}]", "a Unix socket has no ports"),
        ("services:\n  a:\n    connect: [{unix: x}]", "'x' is no socket's path"),
        ("services:\n  a:\n    connect: [{}]", "doesn't say what it allows: write host, cidr or unix"),
        ("services:\n  a:\n    listen: [{host: a}]", "'host' is no field"),
        ("services:\n  a:\n    names: [3]", ".names[0]: 3 is no host pattern"),
        ("services: [", ": mend the YAML"),
        ("services:\n  a: {}\n  a: {}", "duplicate key"),
    ],
)
def test_mistakes_name_the_line_and_the_field(tmp_path: Path, text: str, message: str) -> None:
    """File, line, column, field, what is wrong, what to do."""
    file = tmp_path / "policy.yaml"
    file.write_text(text + "\n")
    with pytest.raises(UsageError) as raised:
        load(file)
    assert str(raised.value).startswith(str(file))
    assert message in str(raised.value)
    assert raised.value.remedy


def test_files_that_are_no_policy(tmp_path: Path) -> None:
    """Missing, a folder, binary: a sentence each."""
    for make, message in (
        (lambda file: file.unlink(missing_ok=True), "No such file"),
        (lambda file: file.mkdir(), "Is a directory"),
        (lambda file: file.write_bytes(b"\xff\xfe\x00"), "isn't UTF-8"),
    ):
        file = tmp_path / message.replace(" ", "")
        make(file)
        with pytest.raises(UsageError, match=message):
            load(file)


def test_a_star_alone_is_any_name() -> None:
    """But not no name."""
    assert host_matches("*", "x")
    assert not host_matches("*", "")
