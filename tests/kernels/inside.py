"""Inside a virtual machine: do the checks and write what they find, line by line, to a folder of the host.

    python -m kernels.inside FOLDER TEXT

`machine` starts it as root of the guest. FOLDER is shared with the host, and has PROGRAMS: how built -> path. Checks
are done whose names have TEXT.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

from goprograms import cache_folder

from kernels import checks, hosts, results, tool_checks
from kernels.guest import Guest
from otel_goprobe import kernel

WORK = Path("/run/otel-goprobe-kernels")
"""Of the guest: a tmpfs of its own, because the rest is the host's file system over 9p."""
MOUNTS = (("debugfs", "/sys/kernel/debug"), ("securityfs", "/sys/kernel/security"))
PROGRAMS = "programs.json"
RESULTS = "results.jsonl"


def prepare(folder: Path) -> Guest:
    """Mount what a booted system has mounted, bring up 127.0.0.1, copy the programs."""
    for kind, place in MOUNTS:
        if not os.path.ismount(place):
            subprocess.run(["mount", "-t", kind, kind, place], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    WORK.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "exec,mode=755", "tmpfs", WORK], check=True)
    cache = WORK / "cache"
    cache.mkdir()
    (cache / "go").symlink_to(cache_folder() / "go")
    copies: dict[str, Path] = {}
    for build, path in json.loads((folder / PROGRAMS).read_text()).items():
        copies[build] = cache / Path(path).relative_to(cache_folder())
        shutil.copytree(Path(path).parent, copies[build].parent)
    servers = {build: path for build, path in copies.items() if path.name == checks.SERVER}
    of_tools = {name: copies[name] for name in tool_checks.PROGRAMS}
    return Guest(servers, copies[hosts.PROGRAM], of_tools, cache)


def features() -> list[results.Result]:
    """What `otel_goprobe.kernel` finds by trying."""
    found = []
    for feature in kernel.probe_features():
        if feature.name.startswith("CAP_"):
            continue  # of the process, which is root's
        state: results.State = "yes" if feature.state == "yes" else "failed" if feature.required else "lacks"
        detail = feature.detail if state != "yes" else ""
        found.append(results.Result(feature.name, state, feature.detail or feature.state, detail))
    return found


def attempt(name: str, check: checks.Check, guest: Guest) -> results.Result:
    """Do one check; whatever goes wrong in it is what it found."""
    began = time.monotonic()
    try:
        found, _, detail = check(guest).partition("\n")
    except Exception as error:  # noqa: BLE001 - the boundary: the next checks are to be done all the same
        detail = "".join(traceback.format_exception(error))
        return results.Result(name, "failed", type(error).__name__, detail, time.monotonic() - began)
    return results.Result(name, "yes", found, detail, time.monotonic() - began)


def main() -> None:
    """Do all checks."""
    folder, text = Path(sys.argv[1]), sys.argv[2]
    lines = folder / RESULTS
    release = os.uname().release
    results.append(lines, results.Result("Kernel", "yes", release))
    guest = prepare(folder)
    for feature in features():
        results.append(lines, feature)
    for name, check in checks.sequence(list(guest.programs), text).items():
        result = attempt(name, check, guest)
        print(f"{result.state}: {name}: {result.found} ({result.seconds:.0f} s)\n{result.detail}", flush=True)
        results.append(lines, result)


if __name__ == "__main__":
    main()
