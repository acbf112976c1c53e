"""The kernels that are booted, and what has to be found on each; __main__ compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernels.results import ATTACH_WAY, PREEMPTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kernels.results import Result


@dataclass(frozen=True, slots=True)
class Machine:
    """One kernel, booted in one way, and what has to be found there."""

    series: str
    options: tuple[str, ...]
    lacks: frozenset[str]
    """Features that this kernel hasn't got; any other that is missing is a failure."""
    has: Mapping[str, str]
    """Check -> what it has to find."""

    def wrong(self, found: Mapping[str, Result], checks: Iterable[str]) -> list[str]:
        """Return what isn't as it should be.

        Args:
            found: by check.
            checks: all that had to be tried.
        """
        problems = [f"not tried: {check}" for check in checks if check not in found]
        for name, result in found.items():
            wanted = self.has.get(name, result.found)
            if result.state == "failed":
                problems.append(f"failed: {name}: {result.detail}")
            elif result.state == "lacks" and name not in self.lacks:
                problems.append(f"lacks {name}: {result.detail}")
            elif result.found != wanted:
                problems.append(f"{name} is {result.found}, not {wanted}")
        return problems


# Links to many sites came with Linux 6.6: commit 89ae89f53d20, "bpf: Add multi uprobe link".
OLD = frozenset({"uprobe_multi links"})
MACHINES = (
    Machine("6.1", (), OLD, {PREEMPTION: "voluntary", ATTACH_WAY: "perf_event"}),
    Machine("6.12", (), frozenset(), {PREEMPTION: "voluntary", ATTACH_WAY: "uprobe_multi"}),
    Machine("6.12", ("preempt=full",), frozenset(), {PREEMPTION: "full", ATTACH_WAY: "uprobe_multi"}),
)
