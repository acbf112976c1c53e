"""Executables -> what this run attaches to them, each analysed once; start.py begins it, instrumented.py asks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_goprobe.plancache import PendingPlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_goprobe.analysis import OutlinedProbe
    from otel_goprobe.config import Config
    from otel_goprobe.model import Plan, ProbePlan

FileKey = tuple[int, int, int, int]
"""Device, inode, size and modification time in ns: what names an executable's content."""


class Plans:
    """Plans by executable.

    Args:
        config: for the run's options, and where analyses are kept.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        """May become another one as long as no plan has been asked for."""
        self._begun: dict[FileKey, PendingPlan] = {}
        self._plans: dict[FileKey, Plan] = {}

    def begin(self, path: str) -> int | None:
        """Begin the analysis of an executable that `of` will be asked for.

        Args:
            path: opens it.

        Returns:
            Its descriptor, to be closed once `of` has been asked; None if it can't be opened, which is no error yet.
        """
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        self._begin(file)
        return file

    @property
    def analyses(self) -> int:
        """How many have begun that nobody has asked for."""
        return sum(begun.outline is None for begun in self._begun.values())

    def programs_known(self) -> set[str]:
        """Return the BPF programs of plans that have begun, needn't be waited for, and weren't asked for yet."""
        return self._programs(probe for begun in self._begun.values() for probe in begun.outline or ())

    def programs_likely(self) -> set[str]:
        """Return these and what the others will probably have, waiting for what their analyses say first."""
        return self._programs(probe for begun in self._begun.values() for probe in begun.likely())

    def _programs(self, probes: Iterable[OutlinedProbe]) -> set[str]:
        return {probe.program for probe in probes if self._wanted(probe)}

    def _begin(self, file: int) -> FileKey:
        key = file_key(file)
        if key not in self._plans and key not in self._begun:
            self._begun[key] = PendingPlan(f"/proc/self/fd/{file}", self.config.cache_dir)
        return key

    def of(self, file: int) -> Plan:
        """Return an executable's plan, without what only options ask for that this run doesn't have.

        Args:
            file: its descriptor.

        Raises:
            BinaryError: as `gobinary.open_binary`.
        """
        key = self._begin(file)
        if key not in self._plans:
            self._plans[key] = self._for_this_run(self._begun.pop(key).result())
        return self._plans[key]

    def _for_this_run(self, plan: Plan) -> Plan:
        return replace(
            plan,
            probes=tuple(probe for probe in plan.probes if self._wanted(probe)),
            skipped=tuple(skip for skip in plan.skipped if not skip.option or self.config.has(skip.option)),
        )

    def _wanted(self, probe: ProbePlan | OutlinedProbe) -> bool:
        asked_for = not probe.option or self.config.has(probe.option)
        return asked_for and not (probe.unless and self.config.has(probe.unless))


def file_key(file: int) -> FileKey:
    """Name what an open executable holds."""
    stat = os.fstat(file)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
