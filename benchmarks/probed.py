"""The agent's probes without the agent: the records are the caller's to read. For modes.py and produce.py."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from otel_goprobe import capacity, config, kernel, probes
from otel_goprobe.discovery.watch import Discovery
from otel_goprobe.instrumented import Targets
from otel_goprobe.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_goprobe.kernel import Program

RING_BYTES = 4 * 2**20


@contextlib.contextmanager
def probed(pid: int) -> Iterator[tuple[Program, dict[int, kernel.Ring]]]:
    """Attach the agent's probes.

    Args:
        pid: of the target.

    Yields:
        The program, whose layouts the records have, and by size of their records the rings, of ``V<size>``.
    """
    sizes = dict.fromkeys((f"ring_{size}" for size in capacity.RINGS), RING_BYTES)
    settings = config.from_environment_and_flags(config.Flags(pids=(pid,)), variables={})
    with (
        kernel.load(probes.unit(kernel.bpf_folder()), cache_dir=config.cache_dir(), sizes=sizes) as program,
        contextlib.ExitStack() as stack,
    ):
        rings = {}
        for size in capacity.RINGS:
            ring = kernel.Ring(program.maps[f"ring_{size}"], np.dtype(f"V{size}"))
            rings[size] = stack.enter_context(contextlib.closing(ring))
        (target,) = Discovery(settings).scan().appeared
        targets = Targets(program, settings, Telemetry())
        one = targets.attach(target)
        try:
            yield program, rings
        finally:
            targets.detach(one)
            targets.release(one)
