"""Boot each kernel, do the checks in it, judge what they found, write the table: `make test-kernels`.

python -m kernels              all kernels, and the table in docs/compatibility.md if all is as it should be
python -m kernels 6.1          those of one series, no table
python -m kernels 6.1 wire     of the checks there only those whose names have this text, no table
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from goprograms import TESTS, go_binary, go_command, go_version

from kernels import checks, hosts, images, inside, machine, results, table, tool_checks
from kernels.expected import MACHINES, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = TESTS.parent
PAGE = PROJECT / "docs/compatibility.md"
SOURCES = ("otel_goprobe", "bpf", "scripts", "tests")
OLDEST_GO = "1.21"


def builds() -> dict[str, Path]:
    """Return the Go programs that run there, built here, by the name that the table gives them."""
    today = f"Go {go_version(go_command()).removeprefix('go')}"
    oldest = f"Go {go_version(go_command(OLDEST_GO)).removeprefix('go')}"
    return {
        today: go_binary(checks.SERVER),
        f"{today} PIE stripped": go_binary(checks.SERVER, strip=True, pie=True),
        f"{oldest} stripped": go_binary(checks.SERVER, go=OLDEST_GO, strip=True),
        checks.HITS: go_binary(checks.HITS),
        hosts.PROGRAM: go_binary(hosts.PROGRAM),
        **{name: go_binary(name) for name in tool_checks.PROGRAMS},
    }


def snapshot(tree: Path) -> Path:
    """Copy what runs in the machines, with its programs compiled: what is edited from now on must not change it.

    To compile them all takes ten minutes on an emulated processor; that it is possible is a check of its own.
    """
    for source in SOURCES:
        shutil.copytree(PROJECT / source, tree / source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(PROJECT / "pyproject.toml", tree)
    (tree / "otel_goprobe/bundles").mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(
        [sys.executable, "-m", "otel_goprobe.units"], env=environment, cwd=tree, check=True, stdout=sys.stderr
    )
    return tree


def tried(
    one: Machine, image: images.Image, programs: Mapping[str, Path], tree: Path, folder: Path, *, text: str = ""
) -> list[str]:
    """Boot one machine, leave its results in `folder`, and return what isn't as it should be.

    Args:
        one: the machine.
        image: its kernel.
        programs: what `builds` returned.
        tree: the project.
        folder: made, for its results.
        text: that the names of the checks have that are done.
    """
    folder.mkdir()
    (folder / inside.PROGRAMS).write_text(json.dumps({build: str(path) for build, path in programs.items()}))
    paths = ":".join(str(tree / part) for part in (".", "tests", "tests/e2e"))
    command = ["env", f"PATH={os.environ['PATH']}", f"PYTHONPATH={paths}"]
    command += [sys.executable, "-m", "kernels.inside", str(folder), text]
    ended = machine.boot(image, command, folder=folder, working=tree, options=one.options)
    servers = [build for build, path in programs.items() if path.name == checks.SERVER]
    problems = one.wrong(results.read(folder / inside.RESULTS), checks.sequence(servers, text))
    return [f"the machine: {ended}", *problems] if ended else problems


def main() -> int:
    """Do it; 0 only if every machine showed all that it should."""
    series = sys.argv[1] if len(sys.argv) > 1 else ""
    text = sys.argv[2] if len(sys.argv) > 2 else ""
    machines = [one for one in MACHINES if series in {"", one.series}]
    if not machines or len(sys.argv) > 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        images.prepare_machine()
        booted = {name: images.fetch(name) for name in dict.fromkeys(one.series for one in machines)}
        machine.install()
        programs = builds()
    except (images.NoKernelError, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"test-kernels: {error}", file=sys.stderr)
        return 1
    run = Path(tempfile.mkdtemp(prefix="otel-goprobe-kernels-"))
    tree = snapshot(run / "tree")
    columns: dict[str, dict[str, results.Result]] = {}
    failed = 0
    for number, one in enumerate(machines):
        name = " ".join([booted[one.series].release, *(f"`{option}`" for option in one.options)])
        folder = run / str(number)
        began = time.monotonic()
        print(f"=== {name} (10 minutes or more)", flush=True)
        problems = tried(one, booted[one.series], programs, tree, folder, text=text)
        columns[name] = results.read(folder / inside.RESULTS)
        for check, result in columns[name].items():
            print(f"{result.state:<6}  {check}: {result.found}")
            if result.state == "yes" and result.detail:
                print(result.detail)
        for problem in problems:
            print(f"WRONG   {problem}")
        failed += bool(problems)
        outcome = f"{len(problems)} wrong: see {folder}/console.log" if problems else "as it should be"
        print(f"=== {name}: {outcome}; {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        return 1
    shutil.rmtree(run)
    if not series:
        table.write(PAGE, table.fragment(columns, dt.datetime.now(tz=dt.UTC).date()))
        print(f"the table is in {PAGE.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
