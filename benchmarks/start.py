"""From the agent's exec to its probes, and to the first span at a receiver. ``python -m benchmarks.start``, as root.

``make bench-start`` makes the bundle before. Each start is a process of its own; the agent may use all cores, Python's
bytecode is cached as in an installed wheel. ``warm`` starts find the plan of the target's executable in the cache,
before ``cold`` ones it is removed. The target answers a request every 5 ms, so that there is a first span to wait for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import modes
from benchmarks.machine import CPUS, give, in_words, machine, table
from benchmarks.processes import TEMPORARY, Server
from benchmarks.programs import ENVIRONMENT
from benchmarks.receivers import receiving
from otel_goprobe import kernel, probes
from otel_goprobe.kernel import bundle

PLANS = "*.plan.json"


def measure(starts: int, cache: Path) -> dict[str, Any]:
    """Start it `starts` times with a plan in the cache and as often without; seconds."""
    results: dict[str, Any] = {"warm": [], "cold": []}
    with receiving(real=False) as receiver, Server() as server:
        for number in range(2 * starts + 1):
            cold = number % 2 == 1
            for plan in cache.glob(PLANS) if cold else ():
                plan.unlink()
            agent = modes.Agent(server, receiver, CPUS)
            agent.stop()
            if number:  # the first one fills the caches
                results["cold" if cold else "warm"].append((agent.attached_s, agent.first_span_s))
    return results


def text(results: dict[str, Any]) -> str:
    """Return the table and what it was measured on."""
    rows = []
    for name in ("warm", "cold"):
        columns = list(zip(*results[name], strict=True))
        rows.append([name, *(f"{statistics.median(column):.2f} ({max(column):.2f})" for column in columns)])
    header = ["plan of the executable", "probes attached, s: median (worst)", "first span, s: median (worst)"]
    compiled = f"BPF programs: {results['programs']}. {in_words(results['machine'])}"
    return f"{table(header, rows)}\n\n{compiled}"


def main() -> None:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=11, help="of each kind [%(default)s]")
    parser.add_argument("--json", default="", metavar="FILE", help="write the results there")
    parser.add_argument("--into", default="", metavar="FILE", help="write the table into this document's block")
    options = parser.parse_args()
    described = machine()
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        origin = bundle.obtain(probes.unit(kernel.bpf_folder()), Path(folder)).origin
        ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)
        ENVIRONMENT[modes.CACHE], ENVIRONMENT["PYTHONPYCACHEPREFIX"] = folder, f"{folder}/bytecode"
        print(f"{2 * options.starts + 1} starts", file=sys.stderr)
        results = measure(options.starts, Path(folder)) | {"machine": described, "programs": origin}
    give(results, {"start": text(results)}, json_path=options.json, document=options.into)


if __name__ == "__main__":
    main()
