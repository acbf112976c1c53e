"""``run -- CMD`` -> a child that waits before its exec, so that the agent attaches to its pid first; for start.py.

    launch = Launch(("./shop", "--listen", ":8080"), user="1000", environment=environment)
    ...                      # attach to launch.pid, by the file launch.exe_path
    launch.release()         # exec; the links on the task stay
    while launch.poll() is None: ...

The child is forked, not spawned: subprocess.Popen returns only after the exec, and a link made on a task before
its exec catches every hit behind it. Launch before the agent starts threads. Nothing ties the command's life to that of
the agent: if the agent is killed, the command goes on (one that still waits ends).
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from otel_goprobe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PASSED_ON: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
"""Signals that the agent hands to `Launch.signal` while a command runs."""
_RESTORED: Final = (
    *PASSED_ON,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGTTOU,
    signal.SIGTTIN,
    signal.SIGTSTP,
    signal.SIGCHLD,
)
"""Python ignores SIGPIPE and SIGXFSZ, and exec keeps that; a Go program expects the defaults."""
_READY, _GO = b"r", b"g"
_TERMINAL: Final = 0
"""Standard input, whose terminal the command gets."""
_NOT_STARTED: Final = 127
"""A shell's exit code for a command that can't be run."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the command."""

    uid: int
    gid: int
    name: str = ""
    """Empty for a uid that /etc/passwd doesn't know."""
    home: str = ""
    shell: str = ""


def account_of(user: str) -> Account:
    """Look up ``name``, ``uid``, ``name:group`` or ``uid:gid``.

    Raises:
        UsageError: there is no such user or group.
    """
    owner, _, group = user.partition(":")
    try:
        entry = pwd.getpwuid(int(owner)) if owner.isdecimal() else pwd.getpwnam(owner)
        account = Account(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir, entry.pw_shell)
    except (KeyError, OverflowError):
        if not owner.isdecimal() or int(owner) >= 2**32 - 1:
            raise UsageError(
                f"there is no user {owner!r}", "name one of /etc/passwd, or a number, with --user"
            ) from None
        account = Account(int(owner), int(owner))
    if not group:
        return account
    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"there is no group {group!r}", "name one of /etc/group, or a number") from None
    return Account(account.uid, gid, account.name, account.home, account.shell)


class Launch:
    """A command that waits before its exec, in a process group of its own.

    Args:
        command: the program, looked up in PATH unless it holds a slash, and its arguments.
        user: who runs it (see `account_of`); empty for whoever runs the agent.
        environment: its whole environment; with `user`, HOME, USER, LOGNAME and SHELL become that account's.

    Attributes:
        pid: of the child; the same task before and after its exec.
        exe_path: the file that it will exec.

    Raises:
        UsageError: there is no such command or user, or the user can't be changed to.
    """

    def __init__(self, command: Sequence[str], *, user: str = "", environment: Mapping[str, str]) -> None:
        self.command = tuple(command)
        account = account_of(user) if user else None
        self.environment = _environment_of(account, environment) if account else dict(environment)
        self.exe_path = _resolved(self.command[0], self.environment.get("PATH", os.defpath))
        self._returncode: int | None = None
        self._released = False
        go, self._go = os.pipe()
        self._report, report = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                self._child(account, go, report, blocked)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(go)
        os.close(report)
        with contextlib.suppress(OSError):  # the child does the same, whoever is first
            os.setpgid(self.pid, self.pid)
        ready = os.read(self._report, 1)
        if ready != _READY:
            self._fail(ready + _all(self._report))

    def release(self) -> None:
        """Let the child exec, and wait until it has.

        Raises:
            UsageError: it can't be executed.
        """
        self._take_terminal()
        self._released = True
        with contextlib.suppress(BrokenPipeError):  # it was killed while it waited: poll() says so
            os.write(self._go, _GO)
        os.close(self._go)
        failure = _all(self._report)
        os.close(self._report)
        if failure:
            self._fail(failure)

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens if it has ended."""
        if self._returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def poll(self) -> int | None:
        """The command's exit code, 128 + n if signal n killed it; None while it runs.

        If it was stopped from the terminal (Ctrl-Z), the agent stops too, and both go on together.
        """
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the command's end and return its exit code, 128 + n if signal n killed it."""
        while (code := self._collect(0)) is None:
            pass
        return code

    def finish(self, code: int | None) -> int:
        """Wait for the command's end and return its exit code, 128 + n if signal n killed it.

        Args:
            code: what the run is to end with: the command is ended, by SIGTERM, and this is returned; None: the run
                lasts as long as the command.
        """
        ended = self.poll()
        if code is None or ended is not None:
            return code or self.wait()
        self.signal(signal.SIGTERM)
        self.wait()
        return code

    def abandon(self) -> None:
        """End a child that was never released."""
        if not self._released:
            self._released = True
            os.close(self._go)
            os.close(self._report)
            self.wait()

    # --- the child ---------------------------------------------------------------------------------------------------

    def _child(self, account: Account | None, go: int, report: int, mask: Iterable[int]) -> NoReturn:
        """Become the command, or report why not; nothing of the agent runs in the child behind this."""
        try:
            os.close(self._go)
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in _RESTORED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if account:
                _become(account)
            os.write(report, _READY)
            if os.read(go, 1) == _GO:
                os.execve(self.exe_path, self.command, self.environment)  # noqa: S606 - a shell is what it must not be
        except OSError as error:
            os.write(report, f"{error.strerror}".encode())
        finally:
            os._exit(_NOT_STARTED)

    def _fail(self, failure: bytes) -> NoReturn:
        self._released = True
        with contextlib.suppress(OSError):
            os.close(self._go)
        code = self.wait()
        reason = failure.decode() or f"it ended with code {code}"
        raise UsageError(
            f"{self.exe_path} can't be started: {reason}",
            "check that the user it runs as may execute it, and that it is built for this machine",
        )

    # --- the terminal ------------------------------------------------------------------------------------------------

    def _take_terminal(self) -> None:
        """Make the command's group the terminal's foreground group, if it is ours to give away."""
        self._terminal_taken = False
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(_TERMINAL) == os.getpgrp():
                os.tcsetpgrp(_TERMINAL, self.pid)
                self._terminal_taken = True

    def _return_terminal(self) -> None:
        if self._terminal_taken:
            # Who is in the background is stopped for this, unless it ignores the signal.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with contextlib.suppress(OSError):
                os.tcsetpgrp(_TERMINAL, os.getpgrp())
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _collect(self, options: int) -> int | None:
        if self._returncode is not None:
            return self._returncode
        pid, status = os.waitpid(self.pid, options | os.WUNTRACED)
        if pid == 0:
            return None
        if os.WIFSTOPPED(status):
            if self._terminal_taken:
                self._return_terminal()
                os.kill(os.getpid(), signal.SIGSTOP)
                self._take_terminal()
                self.signal(signal.SIGCONT)
            return None
        code = os.waitstatus_to_exitcode(status)
        self._returncode = code if code >= 0 else 128 - code
        self._return_terminal()
        return self._returncode

    _terminal_taken = False


def _become(account: Account) -> None:
    if (account.uid, account.gid) == (os.geteuid(), os.getegid()) and os.geteuid() != 0:
        return
    if account.name:
        os.initgroups(account.name, account.gid)
    else:
        os.setgroups([account.gid])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def _environment_of(account: Account, environment: Mapping[str, str]) -> dict[str, str]:
    if not account.name:
        return dict(environment)
    own = {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    return {**environment, **own}


def _resolved(program: str, search: str) -> str:
    """Find the file that a shell would run.

    Raises:
        UsageError: there is none, or it can't be executed.
    """
    if "/" not in program:
        found = shutil.which(program, path=search)
        if found is None:
            raise UsageError(
                f"there is no command {program!r} in PATH",
                f"write its path, such as ./{program}; sudo has a PATH of its own",
            )
        return str(Path(found).absolute())
    if not Path(program).exists():
        raise UsageError(f"there is no file {program}", "write the path of a Go program behind --")
    if Path(program).is_dir() or not os.access(program, os.X_OK):
        raise UsageError(
            f"{program} is not executable", "write the path of a Go program behind --, and see its mode with ls -l"
        )
    return str(Path(program).absolute())


def _all(descriptor: int) -> bytes:
    parts: list[bytes] = []
    while part := os.read(descriptor, 4096):
        parts.append(part)
    return b"".join(parts)
