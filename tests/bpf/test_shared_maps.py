"""One map for all agents of a host: found by name and sizes, agreed on by those that start at once, pinned nowhere."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from otel_goprobe.kernel import shared_maps, syscalls
from otel_goprobe.kernel.bundle import MapSpec
from otel_goprobe.kernel.maps import Map

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

HASH = 1
KEY = bytes(28)


@pytest.fixture
def spec() -> MapSpec:
    """Describe a map whose name nothing else on this machine has, as long as a name can be."""
    return MapSpec(name=f"gp_test_{os.getpid():07}", type=HASH, key_size=28, value_size=40, max_entries=64)


def number_of(one: Map) -> int:
    """Return the kernel's number of a map."""
    number: int = struct.unpack_from("<II", syscalls.map_information(one.descriptor))[1]
    return number


@contextmanager
def found(spec: MapSpec) -> Iterator[Map]:
    """Find the map, or make it, as root can."""
    one, shared = shared_maps.find_or_create(spec)
    assert shared
    with closing(one):
        yield one


def test_a_second_agent_finds_the_first_ones_map(spec: MapSpec) -> None:
    """What one writes the other reads."""
    with found(spec) as first, found(spec) as second:
        assert number_of(first) == number_of(second)
        first.update(KEY, b"x" * 40)
        assert second.lookup(KEY) == b"x" * 40


def test_it_lives_as_long_as_anyone_holds_it(spec: MapSpec) -> None:
    """The maker can leave; with the last one it goes."""
    with found(spec) as second:
        with found(spec) as first:
            first.update(KEY, b"x" * 40)
            number = number_of(first)
        with found(spec) as third:
            assert number_of(third) == number_of(second) == number
            assert third.lookup(KEY) == b"x" * 40
    assert syscalls.map_by_id(number) is None
    with found(spec) as fresh:
        assert number_of(fresh) > number


@pytest.mark.parametrize(
    "change",
    [{"key_size": 32}, {"value_size": 48}, {"max_entries": 128}, {"flags": 1}, {"type": 9}, {"name": "another"}],
)
def test_a_map_of_another_shape_is_left_alone(spec: MapSpec, change: dict[str, int | str]) -> None:
    """A name is not enough: type, sizes and flags have to agree too."""
    other = Map.create(msgspec.structs.replace(spec, **change))
    with closing(other), found(spec) as one:
        assert number_of(one) != number_of(other)


def test_of_two_the_older_is_taken(spec: MapSpec) -> None:
    """As it stands for a moment when two agents that found none have each made one."""
    with closing(Map.create(spec)) as older, closing(Map.create(spec)), found(spec) as chosen:
        assert number_of(chosen) == number_of(older)


def test_agents_that_start_at_once_agree(spec: MapSpec) -> None:
    """Whoever makes one beside another's takes the older."""
    agents, rounds = 8, 53
    barrier = threading.Barrier(agents)
    chosen: list[list[Map]] = [[] for _ in range(rounds)]

    def start(turn: int) -> None:
        barrier.wait()
        chosen[turn].append(shared_maps.find_or_create(spec)[0])

    for turn in range(rounds):
        threads = [threading.Thread(target=start, args=(turn,)) for _ in range(agents)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        numbers = {number_of(one) for one in chosen[turn]}
        with found(spec) as later:
            numbers.add(number_of(later))
        for one in chosen[turn]:
            one.close()
        assert len(numbers) == 1, f"round {turn}"


_WITHOUT = """
import os, sys
from otel_goprobe.kernel import shared_maps
from otel_goprobe.kernel.bundle import MapSpec
one, shared = shared_maps.find_or_create(MapSpec(name=sys.argv[1], type=1, key_size=28, value_size=40, max_entries=64))
print(shared, one.lookup(bytes(28)))
"""


def test_without_cap_sys_admin_each_has_its_own(spec: MapSpec) -> None:
    """It says so, and works."""
    root = Path(__file__).parents[2]
    with found(spec) as one:
        one.update(KEY, b"x" * 40)
        done = subprocess.run(
            [
                "setpriv",
                "--bounding-set=-sys_admin",
                "--inh-caps=-sys_admin",
                sys.executable,
                "-c",
                _WITHOUT,
                spec.name,
            ],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "False None\n"
