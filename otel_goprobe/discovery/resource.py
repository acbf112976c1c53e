"""A Go process -> its resource attributes, `service.name` among them; called by watch.py once a target.

Precedence, highest first:

    1. the flag: ``--service``
    2. the target's own environment: OTEL_SERVICE_NAME, then OTEL_RESOURCE_ATTRIBUTES
    3. the agent's environment: OTEL_SERVICE_NAME, then OTEL_RESOURCE_ATTRIBUTES
    4. the executable's build info, and what /proc says

``telemetry.*`` is the agent's alone. Where the agent may trace several programs (``--all``, several rules), what
identifies one of them (`_OF_ONE_PROGRAM`) is not taken from the agent's environment. Command lines can hold secrets:
only the command is exported.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import psutil
from opentelemetry.semconv._incubating.attributes import (
    container_attributes,
    host_attributes,
    os_attributes,
    process_attributes,
)
from opentelemetry.semconv.attributes import service_attributes, telemetry_attributes

import otel_goprobe
from otel_goprobe.discovery import proc
from otel_goprobe.discovery.selection import program_name
from otel_goprobe.environment import parse_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_goprobe.config import Config
    from otel_goprobe.model import AttributeValue, BuildInfo, GoProcess

_INSTANCE_NAMESPACE: Final = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
"""Semantic conventions, service.instance.id: the namespace for UUID v5 of what identifies an instance."""
_OF_ONE_PROGRAM: Final = frozenset(
    {
        service_attributes.SERVICE_NAME,
        service_attributes.SERVICE_INSTANCE_ID,
        service_attributes.SERVICE_VERSION,
    }
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""uname -m -> the values of host.arch."""


@dataclass(frozen=True, slots=True)
class Given:
    """Resource attributes of a target's own environment."""

    attributes: Mapping[str, str]
    problem: str = ""
    """Why OTEL_RESOURCE_ATTRIBUTES was ignored; empty where it was not."""


def given_attributes(environment: Mapping[str, str]) -> Given:
    """Read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES of a process; the former wins, an empty one is none."""
    problem = ""
    attributes: dict[str, str] = {}
    try:
        attributes.update(parse_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")))
    except ValueError as error:
        problem = f"OTEL_RESOURCE_ATTRIBUTES in its environment is ignored: {error}"
    service = environment.get("OTEL_SERVICE_NAME", "").strip()
    if service:
        attributes[service_attributes.SERVICE_NAME] = service
    if not attributes.get(service_attributes.SERVICE_NAME, "x"):
        del attributes[service_attributes.SERVICE_NAME]
    return Given(attributes, problem)


def resource_attributes(process: GoProcess, service: str, config: Config) -> dict[str, AttributeValue]:
    """Describe a process.

    Args:
        process: the target.
        service: the name that a flag gave it; empty for none.
        config: for the agent's own environment, and whether it can be about more than one program.
    """
    agent = dict(config.resource)
    if config.service_name:
        agent[service_attributes.SERVICE_NAME] = config.service_name
    if config.selection.every or len(config.selection.rules) > 1:
        agent = {key: value for key, value in agent.items() if key not in _OF_ONE_PROGRAM}
    agent = {key: value for key, value in agent.items() if value or key != service_attributes.SERVICE_NAME}
    attributes: dict[str, AttributeValue] = {
        **_host(),
        **_of_process(process),
        **_of_build(process),
        **agent,
        **given_attributes(process.environment).attributes,
    }
    if service:
        attributes[service_attributes.SERVICE_NAME] = service
    return attributes | {
        telemetry_attributes.TELEMETRY_SDK_NAME: "opentelemetry",
        telemetry_attributes.TELEMETRY_SDK_LANGUAGE: "go",
        telemetry_attributes.TELEMETRY_SDK_VERSION: otel_goprobe.__version__,
        telemetry_attributes.TELEMETRY_DISTRO_NAME: "otel-goprobe",
        telemetry_attributes.TELEMETRY_DISTRO_VERSION: otel_goprobe.__version__,
    }


def service_version(build: BuildInfo) -> str:
    """The main module's version, else the revision it was built from; empty where neither was recorded."""
    version = build.main.version if build.main else ""
    return version if version not in {"", "(devel)"} else build.settings.get("vcs.revision", "")


def instance_id(process: GoProcess) -> str:
    """A UUID that stays with this process, and is that of no other one on any machine or after any boot."""
    boot = _line("/proc/sys/kernel/random/boot_id")
    pids = proc.read_link(os.getpid(), "ns/pid")  # two agents in two PID namespaces may both see a pid 7
    identity = f"{_machine_id()}/{boot}/{pids}/{process.pid}/{process.start_ticks}"
    return str(uuid.uuid5(_INSTANCE_NAMESPACE, identity))


def _of_build(process: GoProcess) -> dict[str, AttributeValue]:
    build = process.build
    go_os, go_arch = build.settings.get("GOOS", "linux"), build.settings.get("GOARCH", _architecture())
    attributes: dict[str, AttributeValue] = {
        service_attributes.SERVICE_NAME: program_name(process),
        process_attributes.PROCESS_RUNTIME_NAME: "go",
        process_attributes.PROCESS_RUNTIME_VERSION: build.go_version,
        process_attributes.PROCESS_RUNTIME_DESCRIPTION: f"go version {build.go_version} {go_os}/{go_arch}",
    }
    if version := service_version(build):
        attributes[service_attributes.SERVICE_VERSION] = version
    return attributes


def _of_process(process: GoProcess) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        service_attributes.SERVICE_INSTANCE_ID: instance_id(process),
        process_attributes.PROCESS_PID: process.pid,
        process_attributes.PROCESS_EXECUTABLE_NAME: PurePosixPath(process.exe).name,
        process_attributes.PROCESS_EXECUTABLE_PATH: process.exe,
        process_attributes.PROCESS_CREATION_TIME: _creation_time(process.start_ticks),
    }
    if process.build_id:
        go = "/" in process.build_id  # Go's is four hashes with slashes between them (cmd/go/internal/work/buildid.go)
        key = (
            process_attributes.PROCESS_EXECUTABLE_BUILD_ID_GO
            if go
            else process_attributes.PROCESS_EXECUTABLE_BUILD_ID_GNU
        )
        attributes[key] = process.build_id
    try:
        running = psutil.Process(process.pid)
        with running.oneshot():
            attributes[process_attributes.PROCESS_PARENT_PID] = running.ppid()
            attributes[process_attributes.PROCESS_OWNER] = running.username()
            if command := running.cmdline()[:1]:
                attributes[process_attributes.PROCESS_COMMAND] = command[0].encode("utf-8", "replace").decode()
    except psutil.Error:
        pass  # gone, or not ours to look at: what is known by now has to do
    innermost = proc.parse_innermost_pid(proc.read_text(process.pid, "status"))
    if innermost not in {None, process.pid}:
        attributes[process_attributes.PROCESS_VPID] = innermost or 0
    container = proc.parse_container_id(proc.read_text(process.pid, "cgroup"), proc.read_text(process.pid, "mountinfo"))
    if container:
        attributes[container_attributes.CONTAINER_ID] = container
    return attributes


@cache
def _host() -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        host_attributes.HOST_NAME: os.uname().nodename,
        host_attributes.HOST_ARCH: _architecture(),
        os_attributes.OS_TYPE: "linux",
    }
    if machine := _machine_id():
        attributes[host_attributes.HOST_ID] = machine
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    for key, name in (
        (os_attributes.OS_NAME, "NAME"),
        (os_attributes.OS_VERSION, "VERSION_ID"),
        (os_attributes.OS_DESCRIPTION, "PRETTY_NAME"),
    ):
        if name in release:
            attributes[key] = release[name]
    return attributes


def _architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _creation_time(start_ticks: int) -> str:
    """ISO 8601 in UTC; exact to a clock tick, for the kernel counts no finer."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started = datetime.fromtimestamp(booted + start_ticks / os.sysconf("SC_CLK_TCK"), UTC)
    return started.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _machine_id() -> str:
    return _line("/etc/machine-id") or _line("/var/lib/dbus/machine-id")


def _line(path: str) -> str:
    try:
        return Path(path).read_text("ascii", "replace").strip()
    except OSError:
        return ""
