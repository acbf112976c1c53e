"""The reader of rings under two producers, on two CPUs: busy and discarded records, wraps, foreign sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import UNITS, Launch, plan_of

from otel_goprobe import kernel, model
from otel_goprobe.errors import KernelError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

CALLS = 40_000
RECORDS_PER_CALL = 8


@pytest.fixture(scope="module")
def burst_unit() -> model.Unit:
    """Describe the unit whose records check themselves."""
    return model.Unit(
        name="burst",
        header="",
        sources=(UNITS / "burst.bpf.c",),
        programs=(model.UnitProgram("work_burst"), model.UnitProgram("work_mixed")),
        structs=("burst",),
    )


@pytest.mark.parametrize("size", [2**16, 2**20])
def test_what_was_submitted_is_read_once_whole_and_in_order(
    burst_unit: model.Unit, cache_dir: Path, launch: Launch, work_site: model.Site, size: int
) -> None:
    """Sequence numbers of each producer without a gap; submitted, discarded and refused records add up."""
    process = launch()
    with kernel.load(burst_unit, cache_dir=cache_dir, sizes={"ring": size}) as program:
        ring = kernel.Ring(program.maps["ring"], np.dtype("V256"))
        dtype = program.dtype("burst")
        following = [0, 0]
        read = 0
        counters = program.maps["counters"]
        with kernel.attach(
            program, plan_of(work_site, "work_burst"), pid=process.pid, exe_path=f"/proc/{process.pid}/exe", slot=0
        ):
            process.begin(f"threads {CALLS}")
            running = True
            while running:
                running = int(counters.sums().sum()) < 2 * CALLS * RECORDS_PER_CALL
                while len(records := ring.drain(limit=1000).view(dtype)):
                    assert len(records) <= 1000
                    read += len(records)
                    body = records["sequence"][:, None] * np.uint64(31) + np.arange(30, dtype=np.uint64)
                    assert (records["body"] == body).all()
                    for producer in (0, 1):
                        sequence = records["sequence"][records["producer"] == producer]
                        assert (sequence == np.arange(following[producer], following[producer] + len(sequence))).all()
                        following[producer] += len(sequence)
            process.answer("done")
        first, second, discarded, _no_room = counters.sums().tolist()
        assert following == [first, second]
        assert ring.discarded == discarded > 1000
        assert read * 264 > 3 * size, "the ring never wrapped"
        assert ring.fill == 0.0
        ring.close()


def test_a_full_ring_refuses_and_recovers(
    burst_unit: model.Unit, cache_dir: Path, launch: Launch, work_site: model.Site
) -> None:
    """Nothing reads: BPF counts what finds no room; what had some is there afterwards, and there is room again."""
    process = launch()
    with kernel.load(burst_unit, cache_dir=cache_dir, sizes={"ring": 2**16}) as program:
        ring = kernel.Ring(program.maps["ring"], program.dtype("burst"))
        with kernel.attach(
            program, plan_of(work_site, "work_burst"), pid=process.pid, exe_path=f"/proc/{process.pid}/exe", slot=0
        ):
            process.do("main 100")
            submitted, _, discarded, no_room = program.maps["counters"].sums().tolist()
            assert submitted + discarded == 2**16 // 264
            assert submitted + discarded + no_room == 100 * RECORDS_PER_CALL
            assert 0.99 < ring.fill <= 1
            assert len(ring.drain()) == submitted
            assert ring.fill == 0.0
            process.do("main 1")
            assert len(ring.drain()) + ring.discarded - discarded == RECORDS_PER_CALL
        ring.close()


def test_records_of_another_size_are_an_error(
    burst_unit: model.Unit, cache_dir: Path, launch: Launch, work_site: model.Site
) -> None:
    """A ring with two sizes can't be read by stride: said, not misread."""
    process = launch()
    with kernel.load(burst_unit, cache_dir=cache_dir) as program:
        ring = kernel.Ring(program.maps["mixed"], np.dtype("V16"))
        with kernel.attach(
            program, plan_of(work_site, "work_mixed"), pid=process.pid, exe_path=f"/proc/{process.pid}/exe", slot=0
        ):
            process.do("main 10")
        with pytest.raises(KernelError, match="ring buffer mixed holds a record that hasn't 16 bytes"):
            ring.drain()
        ring.close()


def test_only_a_ring_can_be_read_as_one(burst_unit: model.Unit, cache_dir: Path) -> None:
    """The argument is checked."""
    with kernel.load(burst_unit, cache_dir=cache_dir) as program, pytest.raises(ValueError, match="no ring buffer"):
        kernel.Ring(program.maps["counters"], np.dtype("V16"))
