"""What runs now against what ran at the last scan -> `Changes`; asked by start.py, then agent.py by timer and at execs.

    discovery = Discovery(config)
    changes = discovery.scan()          # everything; after that a process with nothing new costs one stat
    discovery.forget(pid)               # it called exec, which a scan can't see where addresses aren't random
    changes = discovery.scan([pid])     # only this one

A process is chosen by selection.judge. Without a selector the first executable that is alone in sight is chosen, and
stays chosen.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psutil
from opentelemetry.semconv._incubating.attributes.process_attributes import (
    PROCESS_COMMAND,
)
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from otel_goprobe.discovery import ports, proc
from otel_goprobe.discovery.processes import Processes, file_identity
from otel_goprobe.discovery.resource import given_attributes, resource_attributes
from otel_goprobe.discovery.selection import Verdict, judge, only_executable, program
from otel_goprobe.errors import NothingToInstrument, TargetGoneError
from otel_goprobe.model import GoProcess, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_goprobe.config import Config, Selection, Selector, ServiceRule
    from otel_goprobe.discovery.launch import Launch

_SEE_LIST: Final = "see `otel-goprobe list`"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Changes:
    """What a scan found. A process that was replaced in place is in `gone` and in `appeared`: handle `gone` first."""

    appeared: tuple[Target, ...] = ()
    gone: tuple[GoProcess, ...] = ()
    """Former targets that ended, became another program, or turn out to be the receiver of our own spans."""
    notices: tuple[str, ...] = ()
    """Sentences for the user; each is said once a run, for all processes of one executable together."""


class Discovery:
    """Follows the Go processes that a `Config` selects; for one thread.

    Args:
        config: its selection, its endpoint, and what the agent's environment says about resources.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._selection = _with_real_paths(config.selection)
        rules = self._selection.rules
        self._one_executable = not rules and not self._selection.every and not config.command
        self._everywhere = self._one_executable or self._selection.every or not all(map(_pids, rules))
        self._by_port = any(each.kind == "port" for rule in rules for each in rule.selectors)
        self._receiver_port = _local_port(config.otlp.endpoint) if config.exporter == "otlp" else None
        self._receiver_sockets: dict[int, int] = {}
        self._processes = Processes()
        self._known: dict[int, GoProcess] = {}
        self._verdicts: dict[int, Verdict | None] = {}
        self._targets: dict[int, Target] = {}
        self._launching: dict[int, GoProcess] = {}
        self._commands: set[int] = set()
        self._chosen: tuple[str, str] | None = None
        self._gone: list[GoProcess] = []
        self._unsaid: dict[tuple[str, str], tuple[list[int], str]] = {}
        self._said: set[tuple[str, str]] = set()
        self._said_unreadable = False
        self._scanned = False

    @property
    def only_pids(self) -> bool:
        """Whether nothing but processes that are named by their pid, and a launched command, can ever be chosen."""
        return not self._everywhere

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is chosen now."""
        return tuple(self._targets.values())

    def launched(self, launch: Launch) -> Target:
        """Make a target of a child that has yet to exec, so that probes are there before its first instruction.

        Until `Launch.release`, what its ``/proc/PID/exe`` opens is the agent's own executable: use `Launch.exe_path`.

        Raises:
            NothingToInstrument: the command isn't a Go program, or can't be instrumented.
            TargetGoneError: the child has ended.
        """
        path = launch.exe_path
        try:
            file, executable = file_identity(path), self._processes.executable(path, path)
        except OSError as error:
            raise NothingToInstrument(f"{path} can't be opened ({error.strerror})") from error
        if executable.build is None or executable.reason:
            raise NothingToInstrument(executable.reason, "name a Go program itself, not a script that starts one")
        stat = proc.read_stat(launch.pid)
        if stat is None:
            raise TargetGoneError(f"the command {path} ended before it was started")
        process = GoProcess(
            pid=launch.pid,
            start_ticks=stat.start_ticks,
            exe=os.path.realpath(path),
            device=file.device,
            inode=file.inode,
            build=executable.build,
            stripped=executable.stripped,
            build_id=executable.build_id,
            environment={key: value for key, value in launch.environment.items() if key.startswith("OTEL_")},
        )
        verdict = judge(process, self._selection, command=True)
        target = self._target(process, verdict)
        target = dataclasses.replace(target, resource={**target.resource, PROCESS_COMMAND: launch.command[0]})
        self._commands.add(launch.pid)
        self._launching[launch.pid] = process
        self._verdicts[launch.pid], self._targets[launch.pid] = verdict, target
        return target

    def forget(self, pid: int) -> None:
        """Hear that `pid` called exec: the next scan that looks at it reports it gone, and perhaps appeared.

        Nothing happens where a scan sees an exec by itself, from the stack's address, and so may have seen this one
        already; nor for the exec that makes a launched command what `launched` said.
        """
        known = self._known.get(pid)
        if known and not (known.stack_addr and proc.stack_is_random(pid)):
            self._drop(pid)

    def scan(self, pids: Iterable[int] | None = None) -> Changes:
        """Look at all processes, or at some, and say what has changed.

        Raises:
            NothingToInstrument: at the first scan of all, a process that was named by its pid can't be instrumented.
            UsageError: nothing is selected and several Go programs are running.
        """
        question = None if self._everywhere else self._in_question()
        looked = set(question if question is not None else psutil.pids()) if pids is None else set(pids)
        if question is not None:
            looked &= question
        changed = self._look(looked)
        if pids is None:
            for pid in self._known.keys() - looked:
                self._drop(pid)
            changed |= self._with_new_ports() | self._new_receivers()
        for pid in sorted(changed & self._known.keys()):
            self._judge(pid)
        if pids is None and not self._scanned:
            self._check_named()
            self._scanned = True
        appeared = self._choose(changed)
        gone, self._gone = tuple(self._gone), []
        return Changes(appeared, gone, tuple(self._say()))

    # --- what runs ---------------------------------------------------------------------------------------------------

    def _in_question(self) -> set[int]:
        """The only processes to look at where every rule names a pid."""
        return {pid for rule in self._selection.rules for pid in _pids(rule)} | self._commands

    def _look(self, pids: set[int]) -> set[int]:
        """Look at `pids`, drop what isn't there any more, and return those that run something new."""
        changed: set[int] = set()
        for pid in pids:
            if pid in self._launching:
                stat = proc.read_stat(pid)
                if stat and (not stat.stack_addr or _runs_agent(pid)):
                    continue  # before its exec, or in the midst of it
                launched = self._launching.pop(pid)
                self._known[pid] = dataclasses.replace(launched, stack_addr=stat.stack_addr if stat else 0)
            known = self._known.get(pid)
            now = self._processes.look(pid, known)
            if now is known:
                continue
            if known is not None:
                self._drop(pid)
            if now is not None:
                self._known[pid] = now
                changed.add(pid)
        return changed

    def _drop(self, pid: int) -> None:
        process = self._known.pop(pid)
        self._verdicts.pop(pid, None)
        if self._targets.pop(pid, None):
            self._gone.append(process)

    def _with_new_ports(self) -> set[int]:
        """Look again at the ports of processes that no rule covers: a service listens a while after its start."""
        changed: set[int] = set()
        for pid, process in self._known.items() if self._by_port else ():
            if self._verdicts.get(pid) is None:
                now = ports.listening_ports(pid)
                if now != process.ports:
                    self._known[pid] = dataclasses.replace(process, ports=now)
                    changed.add(pid)
        return changed

    def _new_receivers(self) -> set[int]:
        """Find the processes behind a socket that has begun to listen where our spans go."""
        if self._receiver_port is None:
            return set()
        listeners = ports.listeners_near(os.getpid())
        sockets = {inode: port for inode, port in listeners.items() if port == self._receiver_port}
        if sockets == self._receiver_sockets:
            return set()
        self._receiver_sockets = sockets
        return {pid for pid in self._known if ports.held(pid, sockets)}

    # --- what is chosen ----------------------------------------------------------------------------------------------

    def _judge(self, pid: int) -> None:
        process = self._known[pid]
        receiver = bool(ports.held(pid, self._receiver_sockets))
        verdict = judge(process, self._selection, command=pid in self._commands, receiver=receiver)
        self._verdicts[pid] = verdict
        if verdict and verdict.left_alone:
            self._note(process, verdict.left_alone, verdict.remedy)
            if self._targets.pop(pid, None):
                self._gone.append(process)

    def _choose(self, changed: set[int]) -> tuple[Target, ...]:
        """Turn what is new and wanted into targets."""
        taken = {
            pid: verdict for pid, verdict in self._verdicts.items() if verdict and verdict.taken and pid in self._known
        }
        if self._one_executable and self._chosen is None:
            self._chosen = only_executable([self._known[pid] for pid in sorted(taken)])
        appeared: list[Target] = []
        for pid in sorted(changed & taken.keys() - self._targets.keys()):
            process = self._known[pid]
            if self._one_executable and program(process) != self._chosen:
                self._note(process, "another program was chosen before it started", "take all with --all")
                continue
            self._targets[pid] = self._target(process, taken[pid])
            appeared.append(self._targets[pid])
        return tuple(appeared)

    def _target(self, process: GoProcess, verdict: Verdict | None) -> Target:
        resource = resource_attributes(process, verdict.service if verdict else "", self._config)
        if problem := given_attributes(process.environment).problem:
            self._note(process, problem, "write key=value,key=value with values percent-encoded")
        return Target(
            process, str(resource[SERVICE_NAME]), named=verdict is not None and verdict.named, resource=resource
        )

    def _check_named(self) -> None:
        for rule in self._selection.rules:
            for pid in _pids(rule):
                process, verdict = self._known.get(pid), self._verdicts.get(pid)
                if process is None:
                    reason = self._processes.why_not(pid)
                    missing = _missing_capabilities() if pid in self._processes.unreadable else []
                    raise NothingToInstrument(
                        f"process {pid} can't be instrumented: {reason}",
                        f"run as root, or with {' and '.join(missing)}" if missing else _SEE_LIST,
                    )
                if verdict is None:
                    raise NothingToInstrument(
                        f"process {pid} runs {process.exe}, which the other selectors of its rule don't match",
                        _SEE_LIST,
                    )
                if verdict.left_alone:
                    raise NothingToInstrument(
                        f"process {pid} ({process.exe}) can't be instrumented: {verdict.left_alone}",
                        verdict.remedy or _SEE_LIST,
                    )

    # --- what is said ------------------------------------------------------------------------------------------------

    def _note(self, process: GoProcess, reason: str, remedy: str) -> None:
        key = (process.exe, reason)
        if key not in self._said:
            self._unsaid.setdefault(key, ([], remedy))[0].append(process.pid)

    def _say(self) -> Iterator[str]:
        for (exe, reason), (pids, remedy) in self._unsaid.items():
            self._said.add((exe, reason))
            more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
            yield f"{exe} (pid {pids[0]}{more}): {reason}" + (f": {remedy}" if remedy else "")
        self._unsaid.clear()
        unreadable, self._processes.unreadable = self._processes.unreadable, set()
        if unreadable and not self._said_unreadable:
            stats = [proc.read_stat(pid) for pid in unreadable]
            hidden = sum(1 for stat in stats if stat and not stat.kernel_thread)
            # With these capabilities it is a security module that forbids it, and seldom about a user's service.
            missing = _missing_capabilities()
            if hidden and missing:
                self._said_unreadable = True
                yield f"{hidden} processes can't be looked at: run as root, or with {' and '.join(missing)}"


def _missing_capabilities() -> list[str]:
    return proc.parse_missing_capabilities(proc.read_text(os.getpid(), "status"))


def _pids(rule: ServiceRule) -> list[int]:
    return [int(each.value) for each in rule.selectors if each.kind == "pid"]


def _runs_agent(pid: int) -> bool:
    """Whether a forked child still waits before its exec."""
    try:
        return file_identity(f"/proc/{pid}/exe") == file_identity("/proc/self/exe")
    except OSError:
        return False


def _with_real_paths(selection: Selection) -> Selection:
    """Resolve the links in paths without wildcards, as the kernel has done for /proc/PID/exe."""

    def real(selector: Selector) -> Selector:
        value = selector.value
        if selector.kind != "exe" or re.search(r"[*?\[]", value) or not Path(value).exists():
            return selector
        return dataclasses.replace(selector, value=os.path.realpath(value)) if "/" in value else selector

    rules = tuple(dataclasses.replace(rule, selectors=tuple(map(real, rule.selectors))) for rule in selection.rules)
    return dataclasses.replace(selection, rules=rules)


def _local_port(endpoint: str) -> int | None:
    """The port that spans are sent to, if on this machine; None else. No name is looked up: that may take seconds."""
    url = urlsplit(endpoint)
    host = (url.hostname or "").lower()
    port = url.port or _DEFAULT_PORTS.get(url.scheme)
    if host in {"localhost", os.uname().nodename.lower()}:
        return port
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    own = {each.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for each in addresses}
    return port if address.is_loopback or address.is_unspecified or str(address) in own else None
