"""Discovery across the borders that only root can draw: other users, namespaces, mounts, capabilities."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import goprograms
import pytest
from listeners import running

from otel_goprobe.config import Config, OtlpConfig, Selection, Selector, ServiceRule
from otel_goprobe.discovery import proc
from otel_goprobe.discovery.launch import Launch
from otel_goprobe.discovery.processes import Processes
from otel_goprobe.discovery.watch import Discovery

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    """Give the Go program a path that every user can reach."""
    folder = Path(f"/tmp/otel-goprobe-test-{os.getpid()}-{tmp_path.name}")
    folder.mkdir(mode=0o755)
    yield Path(shutil.copy(goprograms.go_binary("listener"), folder / "shop"))
    shutil.rmtree(folder)


def discovery(pid: int) -> Discovery:
    """Make a Discovery for one pid."""
    rule = ServiceRule((Selector("pid", str(pid)),))
    return Discovery(Config(Selection((rule,)), OtlpConfig("http://localhost:4318")))


def child_of(pid: int) -> int:
    """Give the only child of a process."""
    return int(proc.read_text(pid, f"task/{pid}/children"))


def test_process_of_another_user(shop: Path) -> None:
    """Environment, ports and owner of another user's process are seen."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with running([*user, shop, "127.0.0.1:0"], {"OTEL_SERVICE_NAME": "cart"}) as started:
        (target,) = discovery(started.pid).scan().appeared
    assert target.service == "cart"
    assert target.process.ports == (started.port,)
    assert target.resource["process.owner"] == "nobody"


def test_ports_in_another_network_namespace(shop: Path) -> None:
    """A port belongs to the namespace that it was opened in: the same number means nothing outside."""
    inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    with running([shop, "127.0.0.1:0"]) as outer, running([*inside, shop, f"127.0.0.1:{outer.port}"]) as inner:
        look = Processes().look
        found = look(inner.pid)
        assert found is not None
        assert found.ports == (outer.port,)
        config = Config(Selection(every=True), OtlpConfig(f"http://127.0.0.1:{outer.port}"))
        chosen = [target.pid for target in Discovery(config).scan().appeared]
        assert inner.pid in chosen
        assert outer.pid not in chosen


def test_process_in_another_pid_namespace(shop: Path) -> None:
    """The agent's view of the pid is `process.pid`; the process's own is `process.vpid`."""
    with running(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", shop]) as unshare:
        pid = child_of(unshare.pid)
        (target,) = discovery(pid).scan().appeared
    assert (target.resource["process.pid"], target.resource["process.vpid"]) == (pid, 1)
    assert target.resource["process.parent_pid"] == unshare.pid


def test_executable_in_another_mount_namespace(shop: Path) -> None:
    """A file that only the target's own mounts have is read; its path is that of the target."""
    hidden = 'mount -t tmpfs none /mnt; cp "$1" /mnt/hidden; exec /mnt/hidden'
    with running(["unshare", "--mount", "sh", "-c", hidden, "sh", shop]) as started:
        assert not Path("/mnt/hidden").exists()
        found = Processes().look(started.pid)
    assert found is not None
    assert found.exe == "/mnt/hidden"


def test_one_file_on_two_overlays(shop: Path) -> None:
    """Two overlay mounts of one file are two executables to the kernel and one to `--exe`."""
    layers = "mount -t tmpfs none /mnt; cd /mnt; mkdir u w m; "
    layers += 'mount -t overlay none m -o lowerdir="$1",upperdir=u,workdir=w; exec /mnt/m/shop'
    command = ["unshare", "--mount", "sh", "-c", layers, "sh", str(shop.parent)]
    with running(command) as first, running(command) as second:
        rule = ServiceRule((Selector("exe", "/mnt/m/shop"),))
        targets = Discovery(Config(Selection((rule,)), OtlpConfig("http://localhost:4318"))).scan().appeared
    targets = tuple(target for target in targets if target.pid in {first.pid, second.pid})
    assert len(targets) == 2
    assert len({(target.process.device, target.process.inode) for target in targets}) == 2


UNPRIVILEGED = """
import sys
from otel_goprobe.config import *
from otel_goprobe.discovery.watch import Discovery
from otel_goprobe.errors import NothingToInstrument
watch = Discovery(Config(Selection(every=True), OtlpConfig("http://localhost:4318")))
first, second = watch.scan().notices, watch.scan().notices
print(len(first), len(second), first)
try:
    Discovery(Config(Selection((ServiceRule((Selector("pid", sys.argv[1]),)),)), OtlpConfig("http://localhost:4318"))).scan()
except NothingToInstrument as error:
    print(error)
"""


def test_missing_capabilities_are_said_once(shop: Path) -> None:
    """Without CAP_SYS_PTRACE other users' processes are hidden; which capability it is, is said, and once."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    agent = ["setpriv", "--inh-caps=-all", "--bounding-set=-sys_ptrace"]
    with running([*user, shop]) as started:
        done = subprocess.run(
            [*agent, sys.executable, "-c", UNPRIVILEGED, str(started.pid)], capture_output=True, text=True, check=True
        )
    said, named = done.stdout.splitlines()
    assert said.startswith("1 0 ")
    assert "CAP_SYS_PTRACE" in said
    assert "CAP_DAC_READ_SEARCH" not in said
    assert named.startswith(f"process {started.pid} can't be instrumented: its executable may not be looked at")


def test_command_of_another_user(shop: Path) -> None:
    """The command runs with the account's ids, groups and HOME, and without a capability, before its exec already."""
    out = shop.with_name("out")
    out.touch()
    out.chmod(0o666)
    command = ("sh", "-c", f'echo "$(id -u) $(id -G) $HOME $USER $LOGNAME" > {out}')
    launch = Launch(command, user="daemon", environment={"PATH": os.defpath, "HOME": "/root", "USER": "root"})
    status = proc.read_text(launch.pid, "status")
    assert "Uid:\t1\t1\t1\t1\n" in status
    assert "CapPrm:\t0000000000000000\n" in status
    launch.release()
    assert launch.wait() == 0
    assert out.read_text() == "1 1 /usr/sbin daemon daemon\n"


def test_user_without_an_account(shop: Path) -> None:
    """A number that /etc/passwd doesn't know is as good as one it knows; HOME stays."""
    launch = Launch((str(shop),), user="54321:54322", environment={"HOME": "/root"})
    status = proc.read_text(launch.pid, "status")
    assert "Uid:\t54321\t54321\t54321\t54321\n" in status
    assert "Gid:\t54322\t54322\t54322\t54322\n" in status
    assert launch.environment["HOME"] == "/root"
    launch.abandon()
