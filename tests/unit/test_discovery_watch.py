"""Discovery of real processes: a Go program that listens, comes, goes and executes itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import goprograms
import pytest
from listeners import Running, running

from otel_goprobe.config import Config, OtlpConfig, Selection, Selector, ServiceRule
from otel_goprobe.discovery import proc
from otel_goprobe.discovery.processes import Processes, list_go_processes
from otel_goprobe.discovery.watch import Changes, Discovery
from otel_goprobe.errors import NothingToInstrument, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Start(Protocol):
    """Starts a program."""

    def __call__(self, path: Path, *arguments: str, **environment: str) -> Running:
        """Start it and wait until it is ready."""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs; they are killed at the end."""
    with ExitStack() as started:
        yield lambda path, *arguments, **environment: started.enter_context(running([path, *arguments], environment))


@pytest.fixture
def listener(tmp_path: Path) -> Path:
    """Give a path of its own to the Go program, so that other tests' processes don't match."""
    return Path(shutil.copy(goprograms.go_binary("listener"), tmp_path / "shop"))


def discovery(
    *selectors: tuple[str, str], service: str = "", endpoint: str = "http://localhost:4318", every: bool = False
) -> Discovery:
    """Make a Discovery with one rule of these selectors, or none."""
    rule = ServiceRule(tuple(Selector(kind, value) for kind, value in selectors), service)  # type: ignore[arg-type]  # literals
    selection = Selection((rule,) if selectors else (), every=every)
    return Discovery(Config(selection, OtlpConfig(endpoint)))


def pids(changes: Changes) -> tuple[list[int], list[int]]:
    """Give the pids that appeared and those that are gone."""
    return [target.pid for target in changes.appeared], [process.pid for process in changes.gone]


def test_a_go_process_is_described(listener: Path, start: Start) -> None:
    """Path, identity, build info, ports and OTEL_* variables are those of the process."""
    shop = start(listener, "127.0.0.1:0", OTEL_SERVICE_NAME="cart", SHOP_KEY="x")
    process = Processes().look(shop.pid)
    assert process is not None
    status = listener.stat()
    assert (process.exe, process.device, process.inode) == (str(listener), status.st_dev, status.st_ino)
    assert process.build.main is not None
    assert process.build.main.path == "example.com/shop/listener/v2"
    assert process.ports == (shop.port,)
    assert process.environment == {"OTEL_SERVICE_NAME": "cart"}
    assert not process.unsupported
    assert not process.stripped
    assert process.build_id


def test_list_has_it_and_not_us(listener: Path, start: Start) -> None:
    """`list` sees Go programs and no Python."""
    shop = start(listener)
    listed = [process.pid for process in list_go_processes()]
    assert shop.pid in listed
    assert os.getpid() not in listed
    assert listed == sorted(listed)


def test_deleted_executable(listener: Path, start: Start) -> None:
    """A program that was replaced on disk while it runs is read all the same, and its path is what it was."""
    shop = start(listener)
    listener.unlink()
    process = Processes().look(shop.pid)
    assert process is not None
    assert process.exe == str(listener)


def test_it_appears_stays_and_goes(listener: Path, start: Start) -> None:
    """A process is reported once when it is there and once when it is not."""
    watch = discovery(("exe", str(listener)), service="shop")
    assert watch.scan() == Changes()
    shop = start(listener)
    changes = watch.scan()
    assert pids(changes) == ([shop.pid], [])
    assert changes.appeared[0].service == "shop"
    assert not changes.appeared[0].named
    assert watch.scan() == Changes()
    shop.end()
    assert pids(watch.scan()) == ([], [shop.pid])
    assert watch.targets == ()


def test_partial_scan(listener: Path, start: Start) -> None:
    """A scan of some pids reports those alone, coming and going."""
    watch = discovery(("exe", str(listener)))
    first, second = start(listener), start(listener)
    assert pids(watch.scan([second.pid])) == ([second.pid], [])
    second.end()
    assert pids(watch.scan([second.pid])) == ([], [second.pid])
    assert pids(watch.scan()) == ([first.pid], [])


def test_reexecution_in_place(listener: Path, start: Start) -> None:
    """The same file again under the same pid is seen by its stack; the exec event that comes later changes nothing."""
    watch = discovery(("exe", str(listener)))
    shop = start(listener)
    watch.scan()
    for _ in range(5):
        shop.process.send_signal(signal.SIGUSR1)
        shop.ready()
        assert pids(watch.scan()) == ([shop.pid], [shop.pid])
        watch.forget(shop.pid)
        assert watch.scan([shop.pid]) == Changes()


def test_reexecution_without_random_addresses(listener: Path, start: Start) -> None:
    """Where every exec has the same stack, the kernel's exec event tells."""
    watch = discovery(("exe", str(listener)))
    shop = start(Path("/usr/bin/setarch"), "-R", str(listener))
    watch.scan()
    shop.process.send_signal(signal.SIGUSR1)
    shop.ready()
    watch.forget(shop.pid)
    assert pids(watch.scan([shop.pid])) == ([shop.pid], [shop.pid])


def test_reexecution_of_a_new_file(listener: Path, tmp_path: Path, start: Start) -> None:
    """Another executable under the same pid is noticed without being told."""
    watch = discovery(("exe", f"{tmp_path}/*"))
    script = "import os,sys; print('ready 0', flush=True); sys.stdin.read(1); os.execv(sys.argv[1], sys.argv[1:])"
    shop = start(Path(sys.executable), "-c", script, str(listener))
    assert watch.scan([shop.pid]) == Changes()
    shop.tell("x")
    shop.ready()
    assert pids(watch.scan([shop.pid])) == ([shop.pid], [])


def test_port(listener: Path, start: Start) -> None:
    """A process is chosen by a port that it listens on, and not by one of another's."""
    shop, other = start(listener, "[::1]:0"), start(listener, "127.0.0.1:0")
    watch = discovery(("port", str(shop.port)))
    assert pids(watch.scan()) == ([shop.pid], [])
    assert other.pid not in [target.pid for target in watch.targets]


@pytest.fixture
def unused_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_port_that_is_opened_later(listener: Path, start: Start, unused_port: int) -> None:
    """A process that is seen before it listens is chosen once it does."""
    shop = start(listener, "later", f"127.0.0.1:{unused_port}")
    watch = discovery(("port", str(unused_port)))
    assert watch.scan() == Changes()
    shop.tell("x")
    shop.ready()
    assert pids(watch.scan()) == ([shop.pid], [])


def test_receiver_of_our_own_spans(listener: Path, start: Start) -> None:
    """What listens where spans are sent is left alone, also if it begins to listen after it was chosen; said once."""
    receiver, other = start(listener, "127.0.0.1:0"), start(listener)
    watch = discovery(("exe", f"{listener.parent}/*"), endpoint=f"http://127.0.0.1:{receiver.port}/v1/traces")
    changes = watch.scan()
    assert pids(changes) == ([other.pid], [])
    assert len(changes.notices) == 1
    assert "it receives our own spans" in changes.notices[0]
    assert f"--pid {receiver.pid}" in changes.notices[0]

    elsewhere = discovery(("exe", f"{listener.parent}/*"), endpoint=f"http://192.0.2.1:{receiver.port}")
    assert sorted(pids(elsewhere.scan())[0]) == sorted([receiver.pid, other.pid])


def test_receiver_that_listens_late(listener: Path, start: Start, unused_port: int) -> None:
    """A target that turns out to be the receiver is dropped."""
    watch = discovery(("exe", f"{listener.parent}/*"), endpoint=f"http://localhost:{unused_port}")
    other, receiver = start(listener), start(listener, "later", f"127.0.0.1:{unused_port}")
    assert sorted(pids(watch.scan())[0]) == sorted([other.pid, receiver.pid])
    receiver.tell("x")
    receiver.ready()
    changes = watch.scan()
    assert pids(changes) == ([], [receiver.pid])
    assert "it receives our own spans" in changes.notices[0]
    assert watch.scan() == Changes()


@pytest.mark.parametrize(
    ("pid", "reason"),
    [(2**22 + 1, "there is no such process"), (os.getpid(), "not a Go program")],
    ids=["no process", "this one"],
)
def test_named_pid_that_cannot_be(pid: int, reason: str) -> None:
    """A pid that isn't there, or isn't Go, ends with its reason."""
    with pytest.raises(NothingToInstrument, match=reason) as raised:
        discovery(("pid", str(pid))).scan()
    assert raised.value.exit_code == 3


def test_named_32_bit_program(start: Start) -> None:
    """A 32-bit Go program is listed with its reason, and ends with it if it was named."""
    shop = start(goprograms.go_binary("listener", goarch="386"))
    process = Processes().look(shop.pid)
    assert process is not None
    assert "32-bit" in process.unsupported
    with pytest.raises(NothingToInstrument, match="32-bit"):
        discovery(("pid", str(shop.pid))).scan()


def test_pid_and_another_selector_that_does_not_match(listener: Path, start: Start) -> None:
    """Selectors of a rule are ANDed; a named pid that fails the other one is said."""
    shop = start(listener)
    with pytest.raises(NothingToInstrument, match="which the other selectors"):
        discovery(("pid", str(shop.pid)), ("exe", "*/other")).scan()


def test_named_pid_is_named(listener: Path, start: Start) -> None:
    """Only --pid makes a target named; the service is called after its main module."""
    shop = start(listener)
    (target,) = discovery(("pid", str(shop.pid))).scan().appeared
    assert target.named
    assert target.service == "listener"


def test_several_without_a_selector(listener: Path, tmp_path: Path, start: Start) -> None:
    """Two executables and no selector end with a list; --all takes both."""
    first, second = start(listener), start(Path(shutil.copy(listener, tmp_path / "other")), OTEL_SERVICE_NAME="web")
    with pytest.raises(UsageError, match="nothing says which") as raised:
        discovery().scan()
    assert f"pid {first.pid}" in raised.value.message
    everything = {target.pid: target.service for target in discovery(every=True).scan().appeared}
    assert everything.items() >= {first.pid: "listener", second.pid: "web"}.items()


def test_link_to_the_executable(listener: Path, tmp_path: Path, start: Start) -> None:
    """--exe takes a path with a symbolic link in it."""
    (tmp_path / "link").symlink_to(listener)
    shop = start(listener)
    assert pids(discovery(("exe", str(tmp_path / "link"))).scan()) == ([shop.pid], [])


def test_malformed_attributes_are_said_once(listener: Path, start: Start) -> None:
    """A target whose OTEL_RESOURCE_ATTRIBUTES can't be read is traced without them, and this is said once."""
    start(listener, OTEL_RESOURCE_ATTRIBUTES="hunter2")
    watch = discovery(("exe", str(listener)))
    notices = watch.scan().notices
    assert len(notices) == 1
    assert "OTEL_RESOURCE_ATTRIBUTES" in notices[0]
    assert "hunter2" not in notices[0]
    start(listener, OTEL_RESOURCE_ATTRIBUTES="hunter2")
    assert watch.scan().notices == ()


def test_resource_of_a_process(listener: Path, start: Start) -> None:
    """What the process and its build say is what the resource has; arguments stay out of it."""
    before = time.time()
    shop = start(listener, "127.0.0.1:0", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test%20bed")
    (target,) = discovery(("pid", str(shop.pid))).scan().appeared
    resource = target.resource
    assert resource["process.pid"] == shop.pid
    assert resource["process.parent_pid"] == os.getpid()
    assert resource["process.executable.path"] == resource["process.command"] == str(listener)
    assert resource["process.executable.name"] == "shop"
    assert resource["process.runtime.name"] == "go"
    assert resource["process.runtime.version"] == target.process.build.go_version
    assert str(resource["process.runtime.description"]).startswith("go version go1.")
    assert resource["process.executable.build_id.go"] == target.process.build_id
    assert resource["deployment.environment.name"] == "test bed"
    assert resource["host.name"] == os.uname().nodename
    assert resource["host.arch"] in {"amd64", "arm64"}
    assert resource["os.type"] == "linux"
    assert "127.0.0.1:0" not in str(resource)
    created = datetime.fromisoformat(str(resource["process.creation.time"])).timestamp()
    assert abs(created - before) < 1
    assert uuid.UUID(str(resource["service.instance.id"])).version == 5


def test_instance_id_stays_and_differs(listener: Path, start: Start) -> None:
    """Two scans give a process one instance id, and two processes two."""
    start(listener)
    start(listener)

    def ids() -> list[object]:
        return [each.resource["service.instance.id"] for each in discovery(("exe", str(listener))).scan().appeared]

    assert ids() == ids()
    assert len(set(ids())) == 2


def test_child_between_fork_and_exec(listener: Path, start: Start) -> None:
    """Processes that a Go program starts are never taken for another instance of it."""
    watch = discovery(("exe", str(listener.with_name("spawner"))))
    spawner = Path(shutil.copy(goprograms.go_binary("listener"), listener.with_name("spawner")))
    shop = start(spawner, "spawn")
    watch.scan()
    seen: set[int] = set()
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        seen |= set(pids(watch.scan())[0])
    assert seen <= {shop.pid}


def reads(scan: Callable[[], Changes]) -> int:
    """Count the read system calls of a scan."""

    def so_far() -> int:
        return int(proc.read_text(os.getpid(), "io").partition("syscr: ")[2].split()[0])

    before = so_far()
    scan()
    return so_far() - before


def test_scan_with_nothing_new_reads_nothing_of_others(listener: Path, start: Start) -> None:
    """A process that isn't Go costs a stat at each scan, never a read; an exec event leads to one process alone."""
    shop = start(listener, "127.0.0.1:0")
    watch = discovery(("exe", str(listener)))
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(300)]
    try:
        watch.scan()
        assert reads(watch.scan) < 150
        assert reads(lambda: watch.scan([shop.pid])) < 20
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
