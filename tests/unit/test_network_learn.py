"""What is learnt: it allows all that was seen, and reads as if a person had written it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_goprobe.errors import UsageError
from otel_goprobe.tools.network_learn import learn
from otel_goprobe.tools.network_policy import NetworkPath, load

NAMES = st.one_of(
    st.from_regex(r"[a-c]{1,2}(\.[a-c]{1,2}){0,3}\.?", fullmatch=True),
    st.sampled_from(
        ["a.co.uk", "b.co.uk", "c.co.uk", "*.a", "", ".", "a..b", "1.2.3.4", "ä.example", "a b", "A.example"]
    ),
    st.text(max_size=20),
)
ADDRESSES = st.one_of(
    st.builds("10.{}.{}.{}".format, *[st.integers(0, 3)] * 3),
    st.ip_addresses().map(str),
    st.sampled_from(["fe80::1%eth0", "::ffff:1.2.3.4", "", "0.0.0.0", "::"]),
)
UNIX = st.one_of(
    st.from_regex(r"/(a|b)/[a-c0-9*?\[\]]{1,5}", fullmatch=True), st.text(max_size=9), st.just("@x"), st.just("/")
)
PORTS = st.one_of(st.integers(1, 12), st.integers(1, 65535))
PATHS = st.one_of(
    st.builds(
        NetworkPath,
        st.sampled_from("ab"),
        st.sampled_from(["connect", "listen"]),
        st.sampled_from(["tcp", "udp"]),
        host=NAMES,
        address=ADDRESSES,
        port=PORTS,
    ),
    st.builds(NetworkPath, st.just("a"), st.sampled_from(["connect", "listen"]), st.just("unix"), unix=UNIX),
    st.builds(NetworkPath, st.just("a"), st.just("name"), st.just(""), host=NAMES),
)


def connect(host: str = "", address: str = "", port: int = 443, protocol: str = "tcp") -> NetworkPath:
    """Return a connection of the service a."""
    return NetworkPath("a", "connect", protocol, host=host, address=address, port=port)


@settings(max_examples=150, deadline=None)
@given(first=st.lists(PATHS, max_size=25), second=st.lists(PATHS, max_size=9))
def test_all_that_was_seen_is_allowed_afterwards(first: list[NetworkPath], second: list[NetworkPath]) -> None:
    """Of one run, then of both; to learn the same again changes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        left = set[NetworkPath]()
        for seen in (first, second, [*first, *second]):
            before = file.read_text() if file.exists() else ""
            result = learn(seen, file)
            left |= set(result.left)
            assert result.paths == len(set(seen))
            assert all(load(file).allows(path) for path in {*seen} - left)
        assert result.rules == 0
        assert file.read_text() == before


def rules(paths: list[NetworkPath], tmp_path: Path) -> str:
    """Return what is learnt, without indentation."""
    file = tmp_path / "policy.yaml"
    file.unlink(missing_ok=True)
    learn(paths, file)
    return " ".join(file.read_text().split())


@pytest.mark.parametrize(
    ("hosts", "patterns"),
    [
        (["a.example.com", "b.example.com"], ["a.example.com", "b.example.com"]),
        (["a.example.com", "b.example.com", "c.example.com"], ["'*.example.com'"]),
        (["a.eu.example.com", "b.us.example.com", "c.example.com"], ["'*.example.com'"]),
        (["a.co.uk", "b.co.uk", "c.co.uk"], ["a.co.uk", "b.co.uk", "c.co.uk"]),
        (["a.com", "b.com", "c.com"], ["a.com", "b.com", "c.com"]),
        (["x.amazonaws.com", "y.amazonaws.com", "z.amazonaws.com"], ["x.", "y.", "z."]),
        ([f"{name}.shop.svc.cluster.local" for name in "abc"], ["'*.shop.svc.cluster.local'"]),
        ([f"db.{name}.svc.cluster.local" for name in "abc"], ["db.a.svc", "db.b.svc", "db.c.svc"]),
    ],
)
def test_names_of_one_domain(tmp_path: Path, hosts: list[str], patterns: list[str]) -> None:
    """Three are a pattern, unless the domain belongs to many."""
    text = rules([connect(host, "9.9.9.9") for host in hosts], tmp_path)
    assert text.count("- host:") == len(patterns)
    assert all(f"- host: {pattern}" in text for pattern in patterns)


@pytest.mark.parametrize(
    ("addresses", "networks"),
    [
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.1/32", "10.0.0.2/32"]),
        (["10.0.0.1", "10.0.0.2", "10.0.0.9"], ["10.0.0.0/24"]),
        ([f"10.42.{pod}.7" for pod in range(5)], ["10.42.0.0/16"]),
        ([f"93.184.{pod}.7" for pod in range(3)], [f"93.184.{pod}.7/32" for pod in range(3)]),
        (["fd00::1", "fd00::2", "fd00::3"], ["fd00::/64"]),
        (["::ffff:10.0.0.1", "10.0.0.1"], ["10.0.0.1/32"]),
    ],
)
def test_addresses_of_one_network(tmp_path: Path, addresses: list[str], networks: list[str]) -> None:
    """Three are a network."""
    text = rules([connect(address=address) for address in addresses], tmp_path)
    assert text.count("- cidr:") == len(networks)
    assert all(f"- cidr: {network}" in text for network in networks)


def test_ports(tmp_path: Path) -> None:
    """Three in a row are a range, as are three that the kernel chose; both protocols at one port are one rule."""
    text = rules([connect("h", port=port) for port in (80, 81, 82, 443, 40000, 50000, 60000)], tmp_path)
    assert "ports: [80-82, 443, 32768-60999]" in text
    text = rules([connect(address="127.0.0.53", port=53, protocol=name) for name in ("tcp", "udp")], tmp_path)
    assert text.endswith("- cidr: 127.0.0.53/32 ports: [53]")


def test_what_listens(tmp_path: Path) -> None:
    """A port that the kernel chose will be another one next time."""
    paths = [NetworkPath("a", "listen", "tcp", address="::", port=port) for port in (8080, 41234)]
    assert "listen: - ports: [8080, 32768-60999] protocol: tcp" in rules(paths, tmp_path)


def test_sockets(tmp_path: Path) -> None:
    """Numbers that differ, and three of one folder, are a star."""
    paths = [NetworkPath("a", "connect", "unix", unix=f"/tmp/app-{pid}.sock") for pid in (17, 4711)]
    assert rules(paths, tmp_path).endswith("connect: - unix: /tmp/app-*.sock")
    paths = [NetworkPath("a", "connect", "unix", unix=f"/run/x/{name}") for name in "abc"]
    assert rules(paths, tmp_path).endswith("connect: - unix: /run/x/*")


def test_a_file_that_is_there_keeps_its_comments_and_rules(tmp_path: Path) -> None:
    """Ports are added where the destination is known."""
    file = tmp_path / "policy.yaml"
    file.write_text(
        "# ours\nservices:\n  a:\n    connect:\n      # the database\n"
        "      - host: db\n        ports: [1]\n        protocol: tcp\n"
    )
    file.chmod(0o600)
    result = learn([connect("db", port=1), connect("db", port=9), connect("new.example.com")], file)
    assert (result.known, result.rules) == (1, 2)
    text = file.read_text()
    assert "# ours" in text
    assert "# the database\n      - host: db\n        ports: [1, 9]" in text
    assert "new.example.com" in text
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_policy_is_left_alone(tmp_path: Path) -> None:
    """With the line that is wrong."""
    file = tmp_path / "policy.yaml"
    file.write_text("services: 3\n")
    with pytest.raises(UsageError, match=r"policy\.yaml:1:11"):
        learn([connect("a")], file)
    assert file.read_text() == "services: 3\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Said, not raised."""
    with pytest.raises(UsageError, match="No such file"):
        learn([connect("a")], tmp_path / "no" / "policy.yaml")


def test_many_paths(tmp_path: Path) -> None:
    """100,000 connections of a port scan are a few lines."""
    paths = [connect(address=f"10.0.{number >> 8 & 255}.{number & 255}", port=80) for number in range(10_000)]
    paths += [connect(address="10.9.9.9", port=port) for port in range(1, 30_000)]
    assert len(rules(paths, tmp_path).split("- cidr:")) == 3
