"""A small Go program under test, the plan that probes it, and units of C like the agent's own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from exchanges import Watched
from networks import Hosts

from otel_goprobe import gobinary, model

UNITS = Path(__file__).parent / "units"
FUNCTION = "main.work"

Launch = Callable[..., "Hits"]
"""``launch()``, or ``launch("setpriv", …)`` to start it through another command, a shell's start not being awaited."""


class Hits:
    """A running tests/go/hits."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def do(self, command: str) -> None:
        """Give one command and wait until it is done."""
        self.begin(command)
        self.answer("done")

    def begin(self, command: str) -> None:
        """Give one command."""
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def answer(self, expected: str) -> None:
        """Wait for the next line, which has to be this."""
        assert self._process.stdout
        assert self._process.stdout.readline() == expected + "\n"


@pytest.fixture(scope="session")
def hits_binary(go_binary: Callable[..., Path]) -> Path:
    """Build tests/go/hits."""
    return go_binary("hits")


@pytest.fixture
def launch(hits_binary: Path) -> Iterator[Launch]:
    """Start tests/go/hits, or another file in its place."""
    started: list[Hits] = []

    def start(*prefix: str, executable: Path = hits_binary) -> Hits:
        started.append(Hits(*prefix, executable))
        if "sh" not in prefix:
            started[-1].answer("ready")
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="session")
def work_site(hits_binary: Path) -> model.Site:
    """Find the start of func work."""
    with gobinary.open_binary(hits_binary) as binary:
        return binary.start_site(binary.functions([FUNCTION])[FUNCTION])


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep what is compiled for the whole session."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def hits_unit() -> model.Unit:
    """Describe a unit like the agent's own: a target struct of 41 members, two rings by stride, tracepoints."""
    members = "".join(f"\tu16 offset_{number};\n" for number in range(32))
    addresses = "".join(f"\tu64 address_{number};\n" for number in range(8))
    return model.Unit(
        name="hits",
        header=f"#define MAX_SLOTS 256\nstruct target {{\n\tu32 kind;\n{members}{addresses}}};\n",
        sources=(UNITS / "hits.bpf.c",),
        programs=(
            model.UnitProgram("work_start"),
            model.UnitProgram("work_large"),
            model.UnitProgram("process_exec", "raw_tracepoint", "sched_process_exec"),
            model.UnitProgram("process_exit", "raw_tracepoint", "sched_process_exit"),
        ),
        structs=("target", "record_256", "record_1024", "process_event"),
    )


def plan_of(site: model.Site, *programs: str) -> model.Plan:
    """Put one site under each program."""
    return model.Plan(tuple(model.ProbePlan(program, "example.com/hits", (site,)) for program in programs), {})


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Give two hosts."""
    with Hosts() as two:
        yield two


@pytest.fixture
def watched(cache_dir: Path) -> Iterator[Watched]:
    """Give the unit, which watches this process."""
    with Watched(cache_dir) as unit:
        unit.watch()
        yield unit
