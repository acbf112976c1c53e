"""`run -- CMD`: a child that waits, execs as the same task, gets signals and the terminal, and gives its exit code."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import goprograms
import pytest

from otel_goprobe.config import Config, OtlpConfig, Selection
from otel_goprobe.discovery import ports, proc
from otel_goprobe.discovery.launch import PASSED_ON, Launch, account_of
from otel_goprobe.discovery.watch import Changes, Discovery
from otel_goprobe.errors import NothingToInstrument, UsageError

ENVIRONMENT = {"PATH": os.defpath, "HOME": "/of-the-agent"}


def until(condition: object) -> None:
    """Wait until a callable is true, ten seconds at most."""
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def state(pid: int) -> str:
    """Give the letter of /proc/PID/stat."""
    return proc.read_text(pid, "stat").rpartition(")")[2].split()[0]


def has_open(pid: int, descriptors: set[int]) -> bool:
    """Whether these and no other files are open: the loader, which opens libraries, is done; nothing was left open."""
    return {int(descriptor.name) for descriptor in Path(f"/proc/{pid}/fd").iterdir()} == descriptors


def sleeps(pid: int) -> bool:
    """Whether a process waits for something, its loader done."""
    return state(pid) == "S"


def test_it_waits_and_stays_the_same_task() -> None:
    """Before the release it is ours and in a group of its own; the exec keeps pid, start time and parent."""
    launch = Launch(("sleep", "60"), environment=ENVIRONMENT)
    before = proc.read_stat(launch.pid)
    assert launch.poll() is None
    assert os.getpgid(launch.pid) == launch.pid
    assert proc.read_link(launch.pid, "exe") == os.path.realpath(sys.executable)
    launch.release()
    after = proc.read_stat(launch.pid)
    assert before
    assert after
    assert (after.start_ticks, after.parent) == (before.start_ticks, os.getpid())
    assert proc.read_link(launch.pid, "exe") == os.path.realpath(launch.exe_path)
    launch.signal(signal.SIGTERM)
    assert launch.wait() == 128 + signal.SIGTERM
    assert launch.poll() == 128 + signal.SIGTERM
    launch.signal(signal.SIGTERM)


def test_exit_code_arguments_and_environment(tmp_path: Path) -> None:
    """Arguments and environment are exactly those that were given."""
    out = tmp_path / "out"
    launch = Launch(
        ("sh", "-c", f'echo "$A $0 $1" > {out}; exit 7', "zero", "a b"), environment={**ENVIRONMENT, "A": "1"}
    )
    launch.release()
    assert launch.wait() == 7
    assert out.read_text() == "1 zero a b\n"


def test_signals_and_descriptors_are_as_a_shell_would_give_them() -> None:
    """Nothing of Python is left: no ignored signal, no blocked one, no open file."""
    listed = [int(descriptor.name) for descriptor in Path("/proc/self/fd").iterdir()]
    inherited = {each for each in listed if Path(f"/proc/self/fd/{each}").is_symlink() and os.get_inheritable(each)}
    real_time = ~0 << (signal.SIGRTMIN - 3)  # glibc's own 32 and 33, which make leaves ignored in its children
    for number in PASSED_ON:
        before = signal.getsignal(number)
        try:
            signal.signal(number, signal.SIG_IGN)
            launch = Launch(("sleep", "60"), environment=ENVIRONMENT)
            launch.release()
        finally:
            signal.signal(number, before)
        until(partial(has_open, launch.pid, inherited))
        status = dict(
            line.split(":\t", 1) for line in proc.read_text(launch.pid, "status").splitlines() if ":\t" in line
        )
        launch.signal(signal.SIGKILL)
        launch.wait()
        assert int(status["SigBlk"], 16) == 0
        assert int(status["SigIgn"], 16) & ~real_time == 0


@pytest.mark.parametrize("number", [each for each in PASSED_ON if each != signal.SIGWINCH])
def test_every_passed_signal_arrives(number: signal.Signals) -> None:
    """Each signal that the agent passes on reaches the command, which dies of it."""
    launch = Launch(("sleep", "60"), environment=ENVIRONMENT)
    launch.release()
    launch.signal(number)
    assert launch.wait() == 128 + number


def test_signal_reaches_the_whole_group() -> None:
    """Children of the command get it too."""
    launch = Launch(("sh", "-c", "sleep 60 & wait"), environment=ENVIRONMENT)
    launch.release()
    children = Path(f"/proc/{launch.pid}/task/{launch.pid}/children")
    until(children.read_text)
    child = int(children.read_text())
    launch.signal(signal.SIGKILL)
    assert launch.wait() == 128 + signal.SIGKILL
    until(lambda: not Path(f"/proc/{child}").exists() or state(child) == "Z")


def test_signal_before_the_release() -> None:
    """A command that is killed while it waits never starts, and says so by its code."""
    launch = Launch(("sleep", "60"), environment=ENVIRONMENT)
    launch.signal(signal.SIGINT)
    until(lambda: state(launch.pid) == "Z")
    launch.release()
    assert launch.wait() == 128 + signal.SIGINT


def test_abandoned(tmp_path: Path) -> None:
    """A command that is given up ends without having run."""
    launch = Launch(("touch", str(tmp_path / "ran")), environment=ENVIRONMENT)
    launch.abandon()
    assert launch.poll() is not None
    assert not (tmp_path / "ran").exists()


def file(path: Path, content: bytes, mode: int) -> str:
    """Write a file and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_commands_that_cannot_be_started(tmp_path: Path) -> None:
    """Each is a UsageError with its reason, at once or from the exec itself; no child is left."""
    no_format = file(tmp_path / "no-format", b"\0\1\2\3", 0o755)
    for command, reason in (
        (("no-such-command",), "no command 'no-such-command' in PATH"),
        (("./no/such/file",), "no file ./no/such/file"),
        ((str(tmp_path),), "is not executable"),
        ((file(tmp_path / "mode", b"#!/bin/sh\n", 0o644),), "is not executable"),
    ):
        with pytest.raises(UsageError, match=reason) as raised:
            Launch(command, environment=ENVIRONMENT)
        assert raised.value.remedy
    for path, reason in (
        (no_format, "Exec format error"),
        (file(tmp_path / "interpreter", b"#!/no/such/shell\n", 0o755), "No such file"),
    ):
        launch = Launch((path,), environment=ENVIRONMENT)
        with pytest.raises(UsageError, match=reason):
            launch.release()
        assert launch.poll() == 127
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_accounts() -> None:
    """Names and numbers are looked up; a number that nobody has is taken as it is."""
    root = account_of("root")
    assert (root.uid, root.gid, root.name, root.home) == (0, 0, "root", "/root")
    assert account_of("0") == root
    nobody = account_of("54321:54322")
    assert (nobody.uid, nobody.gid, nobody.name) == (54321, 54322, "")
    assert account_of("root:daemon").gid == account_of("daemon").gid
    for user in ("no-such-user", "root:no-such-group", str(2**32), "-1"):
        with pytest.raises(UsageError, match="there is no"):
            account_of(user)


def test_launched_target_is_announced_once() -> None:
    """A command becomes a target before its exec; scans on either side, and its exec event, say nothing more."""
    listener = goprograms.go_binary("listener")
    config = Config(
        Selection(service="shop"), OtlpConfig("http://localhost:4318"), command=(str(listener), "127.0.0.1:0")
    )
    discovery = Discovery(config)
    launch = Launch(config.command, environment={**ENVIRONMENT, "OTEL_RESOURCE_ATTRIBUTES": "team=cart"})
    target = discovery.launched(launch)
    assert (target.pid, target.service, target.named) == (launch.pid, "shop", True)
    assert target.resource["team"] == "cart"
    assert target.resource["process.command"] == str(listener)
    assert discovery.scan() == Changes()
    launch.release()
    discovery.forget(launch.pid)
    assert discovery.scan([launch.pid]) == Changes()
    assert discovery.scan([os.getpid(), os.getppid(), 1]) == Changes()
    assert discovery.targets == (target,)
    until(lambda: ports.listening_ports(launch.pid))
    launch.signal(signal.SIGUSR1)
    gone: set[int] = set()
    appeared: set[tuple[int, str, bool]] = set()
    deadline = time.monotonic() + 10
    while not appeared and time.monotonic() < deadline:
        changes = discovery.scan([launch.pid])
        gone |= {each.pid for each in changes.gone}
        appeared |= {(each.pid, each.service, each.named) for each in changes.appeared}
    assert gone == {launch.pid}
    assert appeared == {(launch.pid, "shop", True)}
    launch.signal(signal.SIGKILL)
    launch.wait()
    assert [each.pid for each in discovery.scan().gone] == [launch.pid]


def test_launched_script_is_refused(tmp_path: Path) -> None:
    """A script isn't a Go program, even if it would start one."""
    script = file(tmp_path / "start.sh", b"#!/bin/sh\nexec true\n" + b"#" * 100, 0o755)
    launch = Launch((script,), environment=ENVIRONMENT)
    with pytest.raises(NothingToInstrument, match="not an ELF"):
        Discovery(Config(Selection(), OtlpConfig("http://localhost:4318"))).launched(launch)
    launch.abandon()


TERMINAL_SCRIPT = """
import os, sys, time
from otel_goprobe.discovery.launch import Launch
launch = Launch(tuple(sys.argv[1:]), environment=dict(os.environ))
launch.release()
while (code := launch.poll()) is None:
    time.sleep(0.01)
print("code", code, "foreground", os.tcgetpgrp(0) == os.getpgrp(), flush=True)
"""


class Terminal:
    """A pseudo-terminal with a program in its foreground."""

    def __init__(self, *command: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", TERMINAL_SCRIPT, *command])  # noqa: S606 - a child of pty.fork
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def read_until(self, text: str) -> None:
        """Wait for an output."""
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096).decode()

    def close(self) -> None:
        """End what is left."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


def test_command_has_the_terminal_and_gives_it_back() -> None:
    """It reads what is typed; Ctrl-C is its own, not the agent's, which has the terminal again behind it."""
    terminal = Terminal(
        "sh", "-c", "read line; echo got $line; trap 'exit 9' INT; echo go; while :; do sleep 0.05; done"
    )
    try:
        terminal.type("hello\n")
        terminal.read_until("got hello")
        terminal.read_until("go\r\n")
        terminal.type("\x03")
        terminal.read_until("code 9 foreground True")
    finally:
        terminal.close()


def test_ctrl_z_stops_both_and_fg_goes_on() -> None:
    """What is stopped from the terminal stops the agent too, so that the shell comes back; SIGCONT wakes both."""
    terminal = Terminal("sh", "-c", "echo started; read line; echo got $line")
    try:
        terminal.read_until("started")
        terminal.type("\x1a")
        until(lambda: state(terminal.pid) == "T")
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.type("it\n")
        terminal.read_until("got it")
        terminal.read_until("code 0 foreground True")
    finally:
        terminal.close()


def test_without_a_terminal() -> None:
    """Under a service manager there is nothing to give away."""
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL_SCRIPT.partition("print")[0] + "sys.exit(code)", "sh", "-c", "exit 5"],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 5


def test_command_outlives_a_killed_agent() -> None:
    """A kill -9 of the agent leaves a running command alone, and ends one that was never released."""
    script = "import os,sys;from otel_goprobe.discovery.launch import Launch;"
    script += "one,two=(Launch(('sleep','60'),environment=dict(os.environ)) for _ in '12');one.release();"
    script += "print(one.pid,two.pid,flush=True);os.kill(os.getpid(),9)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        released, waiting = map(int, agent.stdout.readline().split())
    until(lambda: not Path(f"/proc/{waiting}").exists() or state(waiting) == "Z")
    until(partial(sleeps, released))
    os.kill(released, signal.SIGKILL)
