"""Flags end up in the `Config` as `run --help` says: which processes, and who runs a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_goprobe import config
from otel_goprobe.config import Flags, Selector, ServiceRule
from otel_goprobe.errors import UsageError


def read(flags: Flags, /, **variables: str) -> config.Config:
    """Make a Config with no other variables than these."""
    return config.from_environment_and_flags(flags, variables)


def rule(service: str, *selectors: tuple[config.SelectorKind, str]) -> ServiceRule:
    """Make the rule that a flag is expected to make."""
    return ServiceRule(tuple(Selector(kind, value) for kind, value in selectors), service)


@pytest.mark.parametrize(
    ("flags", "rules"),
    [
        (Flags(), []),
        (Flags(services=("shop",)), []),
        (Flags(services=("shop",), pids=(1, 2, 1)), [rule("shop", ("pid", "1")), rule("shop", ("pid", "2"))]),
        (Flags(pids=(7,)), [rule("", ("pid", "7"))]),
        (Flags(exes=("/srv/*/shop",), ports=(80,)), [rule("", ("exe", "/srv/*/shop"), ("port", "80"))]),
        (Flags(ports=(80, 81)), [rule("", ("port", "80")), rule("", ("port", "81"))]),
        (
            Flags(services=("cart=exe:*/cart", "web=port:8080", "api=pid:1234")),
            [rule("cart", ("exe", "*/cart")), rule("web", ("port", "8080")), rule("api", ("pid", "1234"))],
        ),
        (
            Flags(services=("shop", "web=port:80"), pids=(5,)),
            [rule("shop", ("pid", "5")), rule("web", ("port", "80"))],
        ),
        (Flags(services=("odd=exe:/a=b:c",)), [rule("odd", ("exe", "/a=b:c"))]),
        (Flags(every=True, services=("web=port:80",)), [rule("web", ("port", "80"))]),
        (Flags(exes=("shop",)), [rule("", ("exe", "shop"))]),
        (Flags(exes=("bin/shop",)), [rule("", ("exe", "*/bin/shop"))]),
        (Flags(exes=("./shop",)), [rule("", ("exe", f"{Path.cwd()}/shop"))]),
    ],
)
def test_selection(flags: Flags, rules: list[ServiceRule]) -> None:
    """Each way to name processes becomes its rules."""
    selection = read(flags).selection
    assert list(selection.rules) == rules
    assert selection.every == flags.every


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (Flags(every=True, pids=(1,)), "--pid"),
        (Flags(every=True, exes=("x",)), "--exe"),
        (Flags(every=True, services=("shop",)), "--service shop"),
        (Flags(pids=(1,), ports=(80,)), "--port"),
        (Flags(services=("a", "b")), "a, b"),
        (Flags(services=("a", "b=pid:1")), "--service a"),
        (Flags(services=("",)), "--service"),
        (Flags(services=("=pid:1",)), "--service =pid:1"),
        (Flags(services=("a=1234",)), "--service a=1234"),
        (Flags(services=("a=container:x",)), "--service a=container:x"),
        (Flags(services=("a=pid:0",)), "--service a=pid:0"),
        (Flags(services=("a=pid:x",)), "--service a=pid:x"),
        (Flags(services=("a=port:65536",)), "--service a=port:65536"),
        (Flags(services=("a=exe:",)), "--service a=exe:"),
        (Flags(pids=(2**22 + 1,)), "--pid"),
        (Flags(exes=(" ",)), "--exe"),
        (Flags(user="root"), "--user"),
        (Flags(command=()), "--"),
        (Flags(command=("/bin/true",), pids=(1,)), "--pid"),
        (Flags(command=("/bin/true",), every=True), "--all"),
        (Flags(command=("/bin/true",), services=("a=pid:1",)), "--service a=pid:1"),
        (Flags(json_lines=True), "--json"),
        (Flags(exporter="console", endpoint="http://c:1"), "--endpoint"),
        (Flags(exporter="none", protocol="grpc"), "--protocol"),
        (Flags(exclude_routes=("",)), "--exclude-route"),
        (Flags(summary_json="/no/such/directory/x.json"), "--summary-json"),
        (Flags(summary_json="/tmp"), "--summary-json"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: Flags, named: str) -> None:
    """The message names the flag, the remedy the way out."""
    with pytest.raises(UsageError) as caught:
        read(flags)
    assert named in caught.value.message
    assert caught.value.remedy


# --- a command


def test_command_runs_as_the_present_user() -> None:
    """Without sudo and --user nothing changes hands."""
    launched = read(Flags(command=("sh", "-c", "true"), services=("shop",)), PATH="/usr/bin:/bin", HOME="/h")
    assert launched.user == ""
    assert launched.launch_environment == {"PATH": "/usr/bin:/bin", "HOME": "/h"}
    assert (launched.command, launched.selection.service) == (("sh", "-c", "true"), "shop")


@pytest.mark.root
def test_command_runs_as_who_called_sudo() -> None:
    """SUDO_UID and SUDO_GID say who; --user beats them."""
    variables = {"SUDO_UID": "65534", "SUDO_GID": "12345", "HOME": "/root", "USER": "root"}
    launched = read(Flags(command=("/bin/true",)), **variables)
    assert launched.user == "65534:12345"
    assert launched.launch_environment == variables
    assert read(Flags(command=("/bin/true",)), SUDO_UID="65534").user == "65534"
    assert read(Flags(command=("/bin/true",), user="root"), **variables).user == "root"
