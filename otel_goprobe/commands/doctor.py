"""``otel-goprobe doctor``: whether this machine is fit and the collector there, by trying; called by cli.py.

Each check says what it found and, where something is missing, the remedy. Nothing is left behind but the compiled
programs in the cache, which the next run is glad of.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import click

from otel_goprobe import config, log, tools
from otel_goprobe.errors import GoprobeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otel_goprobe.tools.base import Tool

State = Literal["ok", "warn", "fail"]
_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}

_OLDEST_KERNEL: Final = (5, 15)
"""The first whose perf events carry a cookie: commit 82e6b1eee6a8, "bpf: Allow to specify user-provided bpf_cookie"."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer."""

    check: str
    state: State
    found: str
    remedy: str = ""


@click.command("doctor", short_help="Check this machine and the way to the collector.")
@click.option("--endpoint", metavar="URL", help="OTLP receiver [OTEL_EXPORTER_OTLP_ENDPOINT].")
@click.option("--protocol", type=click.Choice(["http/protobuf", "grpc"]), help="[OTEL_EXPORTER_OTLP_PROTOCOL]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(*, endpoint: str | None, protocol: config.Protocol | None, as_json: bool) -> int:
    """Check privileges, kernel, compiler, packages, Go processes, and export nothing to the collector for real.

    Exits with 1 if anything failed. A collector that is missing where none is configured is a warning.

    \b
    Examples
      sudo otel-goprobe doctor
      sudo otel-goprobe doctor --endpoint https://collector:4318
      sudo otel-goprobe doctor --json | jq -r '.checks[] | select(.state != "ok").remedy'
    """  # noqa: D301 - \b is click's mark for a block that keeps its lines
    flags = config.Flags(endpoint=endpoint, protocol=protocol)
    checks = []
    for check in _checks(flags):
        checks.append(check)
        if not as_json:
            _print(check)
    failed = any(check.state == "fail" for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    return 1 if failed else 0


def _print(check: Check) -> None:
    state = click.style(check.state.ljust(4), fg=_COLOURS[check.state])
    click.echo(f"{state}  {check.check:<22}  {log.printable(check.found)}")
    if check.remedy:
        click.echo(f"{'':30}{log.printable(check.remedy)}")


def _checks(flags: config.Flags) -> Iterator[Check]:
    """Do them all, one after another."""
    yield _user()
    yield _kernel()
    packages = _packages()
    yield packages
    features: list[Check] = []
    if packages.state != "fail":
        for check in _features():
            features.append(check)
            yield check
    settings = None
    try:
        settings = config.from_environment_and_flags(flags)
    except GoprobeError as error:
        yield Check("settings", "fail", error.message, error.remedy)
    if packages.state != "fail":
        if not any(check.state == "fail" for check in features):
            yield from _programs(settings.cache_dir if settings else config.cache_dir())
        yield _tried("processes", _go_processes)
    if settings:
        for warning in settings.warnings:
            yield Check("settings", "warn", warning, "correct or unset it")
        if settings.disabled:
            yield Check("settings", "warn", "OTEL_SDK_DISABLED is set: run exports nothing", "unset it to get spans")
        if packages.state != "fail":
            yield _propagation(settings)
            yield _tried("collector", lambda: _collector(settings))


def _tried(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except GoprobeError as error:
        return Check(name, "fail", error.message, error.remedy)
    except OSError as error:
        return Check(name, "fail", str(error), "let this user reach the file that is named here, or use sudo")


# --- the machine


def _user() -> Check:
    return Check("user", "ok", "root" if os.geteuid() == 0 else f"uid {os.geteuid()}, not root")


def _kernel() -> Check:
    release, machine = platform.release(), platform.machine()
    found = f"Linux {release}, {machine}"
    if machine != "x86_64":
        return Check("kernel", "fail", found, "use an x86-64 machine: others are not supported")
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers < _OLDEST_KERNEL:
        return Check("kernel", "fail", found, "use Linux 5.15 or newer")
    return Check("kernel", "ok", found)


def _packages() -> Check:
    python = f"Python {platform.python_version()} ({sys.executable})"
    missing = []
    for requirement in importlib.metadata.requires("otel-goprobe") or []:
        name = re.match(r"[\w.-]+", requirement)
        if name and "extra ==" not in requirement:
            try:
                importlib.metadata.version(name[0])
            except importlib.metadata.PackageNotFoundError:
                missing.append(name[0])
    if missing:
        return Check("python", "fail", f"{python}, without {', '.join(missing)}", "install otel-goprobe again with pip")
    return Check("python", "ok", python)


# --- what the agent does


def _features() -> Iterator[Check]:
    """What the kernel and this process's capabilities allow."""
    from otel_goprobe import kernel  # noqa: PLC0415 - numpy, which `_packages` looks for first

    situational = {capability.name for capability in kernel.SITUATIONAL_CAPABILITIES}
    for feature in kernel.probe_features():
        if feature.state == "yes":
            yield Check(feature.name, "ok", feature.detail or "yes")
            continue
        state = "missing" if feature.name.startswith("CAP_") else feature.state
        found = f"{state}: {feature.detail}" if feature.detail else state
        if feature.required:
            yield Check(feature.name, "fail", found, feature.remedy or "use a kernel that has it")
        elif feature.state == "unknown" or feature.name in situational:
            yield Check(feature.name, "ok", found)
        else:
            yield Check(feature.name, "warn", found, feature.remedy or "nothing to do: tracing works without it")


def _programs(cache_dir: Path) -> Iterator[Check]:
    """Whether the BPF programs can be had, pass the verifier and reach the kernel's tracepoints."""
    from otel_goprobe import kernel, probes  # noqa: PLC0415 - as above
    from otel_goprobe.kernel import bundle  # noqa: PLC0415

    unit = probes.unit(kernel.bpf_folder())

    def compiler() -> Check:
        started = time.monotonic()
        origin = bundle.obtain(unit, cache_dir).origin
        took = time.monotonic() - started
        if origin == "shipped":
            return Check("compiler", "ok", f"not needed: compiled programs came with otel-goprobe, in {bundle.BUNDLES}")
        if origin == "cached":
            return Check("compiler", "ok", f"not needed: compiled programs are in {cache_dir}")
        if bundle.obtain(unit, cache_dir).origin == "cached":
            return Check("compiler", "ok", f"BCC compiled the programs in {took:.1f} s; kept in {cache_dir}")
        found = f"BCC compiled the programs in {took:.1f} s, but {cache_dir} can't keep them for the next start"
        return Check("compiler", "warn", found, "set OTEL_GOPROBE_CACHE to a directory that can be written")

    def programs() -> Check:
        with kernel.load(unit, cache_dir=cache_dir) as program:
            kernel.attach_tracepoints(program).close()
            walked = sum(program.verified_instructions.values())
            found = f"{len(program.descriptors)} pass the verifier ({walked} instructions); raw tracepoints attach"
            return Check("programs", "ok", found)

    compiled = _tried("compiler", compiler)
    yield compiled
    if compiled.state != "fail":
        yield _tried("programs", programs)
        for stem in tools.stems():
            yield _tried(f"tool {stem}", functools.partial(tool_check, tools.tool(stem)))


def tool_check(tool: Tool) -> Check:
    """Tell which of the tracepoints that a tool needs this kernel has.

    Raises:
        NotPermittedError: for want of a capability.
    """
    from otel_goprobe import kernel  # noqa: PLC0415 - as above

    name, wanted = f"tool {tool.stem}", {each.event: each for each in tool.tracepoints}
    missing = kernel.missing_tracepoints(wanted)
    if not missing:
        return Check(name, "ok", f"{len(wanted)} of {len(wanted)} tracepoints are there")
    found = f"{len(wanted) - len(missing)} of {len(wanted)} tracepoints are there; {', '.join(missing)} not"
    if any(wanted[event].required for event in missing):
        return Check(name, "fail", found, "use a kernel that has them; the other tools, and run, do without")
    return Check(name, "warn", found, "nothing to do: the tool works without, and shows less")


def _go_processes() -> Check:
    from otel_goprobe.discovery.processes import list_go_processes  # noqa: PLC0415 - as above

    processes = list_go_processes()
    fit = sum(not process.unsupported for process in processes)
    if not processes:
        return Check("processes", "warn", "no Go process in sight", "start one; otel-goprobe run waits for it")
    remedy = "" if fit else "see otel-goprobe list for the reasons"
    return Check(
        "processes", "ok" if fit else "warn", f"{len(processes)} Go in sight, {fit} can be instrumented", remedy
    )


def _propagation(settings: config.Config) -> Check:
    from otel_goprobe import kernel, probes  # noqa: PLC0415 - as above

    chosen = settings.propagation
    refused = kernel.writing_refused()
    found = f"{chosen}: {probes.unreached(chosen)}"
    return Check("propagation", "ok", f"{found}; write isn't possible here: {refused}" if refused else found)


def _collector(settings: config.Config) -> Check:
    if settings.exporter != "otlp":
        return Check("collector", "ok", f"not asked: the exporter is {settings.exporter!r}")
    from otel_goprobe.export import reachability  # noqa: PLC0415 - as above

    result = reachability.probe(settings.otlp, settings.otlp.timeout_s)
    if result.ok:
        return Check("collector", "ok", result.detail)
    return Check("collector", "fail" if settings.otlp.configured else "warn", result.detail, result.remedy)
