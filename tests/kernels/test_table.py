"""What machines found is judged, and replaces its own part of a page."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from kernels import table
from kernels.expected import Machine
from kernels.results import ATTACH_WAY, PREEMPTION, Result

if TYPE_CHECKING:
    from pathlib import Path

DATE = dt.date(2026, 11, 22)


def test_a_part_is_added_once_and_replaced_then(tmp_path: Path) -> None:
    """What others wrote before and behind it stays."""
    page = tmp_path / "docs/compatibility.md"
    table.write(page, table.fragment({"6.1": {"Uprobes": Result("Uprobes", "yes", "perf_event")}}, DATE))
    page.write_text(page.read_text().replace("# Compatibility\n", "# Others\n\nBefore.\n") + "\nBehind.\n")
    table.write(page, table.fragment({"6.12": {"Uprobes": Result("Uprobes", "yes", "uprobe_multi")}}, DATE))
    text = page.read_text()
    assert text.startswith("# Others\n\nBefore.\n\n<!-- kernels:begin -->\n")
    assert text.endswith("<!-- kernels:end -->\n\nBehind.\n")
    assert "| Uprobes | uprobe_multi |" in text
    assert "perf_event" not in text


def test_every_kernel_has_a_cell_for_every_check() -> None:
    """What is missing on one is said there."""
    text = table.fragment(
        {
            "old": {"Links": Result("Links", "lacks", "no", "since 6.6")},
            "new": {"Waits": Result("Waits", "yes", "fine")},
        },
        DATE,
    )
    assert "| Links | no: since 6.6 | not tried |" in text
    assert "| Waits | not tried | fine |" in text


def test_what_is_wrong_is_named() -> None:
    """A check that wasn't done, one that failed, a feature that should be there, another way than this kernel's."""
    machine = Machine("6.1", (), frozenset({"links"}), {ATTACH_WAY: "perf_event"})
    checks = (PREEMPTION, ATTACH_WAY)
    found = {
        PREEMPTION: Result(PREEMPTION, "yes", "full"),
        ATTACH_WAY: Result(ATTACH_WAY, "yes", "perf_event"),
        "links": Result("links", "lacks", "no"),
    }
    assert machine.wrong(found, checks) == []
    del found[PREEMPTION]
    found |= {
        "BTF": Result("BTF", "lacks", "no", "not built in"),
        "maps": Result("maps", "failed", "no", "not permitted"),
        ATTACH_WAY: Result(ATTACH_WAY, "yes", "uprobe_multi"),
    }
    assert machine.wrong(found, checks) == [
        "not tried: Preemption",
        "Uprobes attached by is uprobe_multi, not perf_event",
        "lacks BTF: not built in",
        "failed: maps: not permitted",
    ]
