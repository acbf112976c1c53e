"""2,000 damaged executables: an answer or a BinaryError from each, soon. docs/fuzzing.md has the long run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import goprograms
import pytest
from fuzz.gobinary_fuzz import Victim, run

if TYPE_CHECKING:
    from pathlib import Path

MUTATIONS = int(os.environ.get("OTEL_GOPROBE_FUZZ_MUTATIONS", "2000"))
SEED = 20261122


@pytest.mark.timeout(max(120, MUTATIONS // 10))
@pytest.mark.slow
def test_damaged_executables(minimal: Path, minimal_arm64: Path) -> None:
    """Flipped bits, hostile numbers, pieces from elsewhere, cut off files; mostly stripped, some with DWARF."""
    stripped, with_dwarf = Victim(minimal), Victim(goprograms.go_binary("minimal"))
    figures = run([stripped, Victim(minimal_arm64), stripped, stripped, with_dwarf], MUTATIONS, SEED)
    assert figures.mutations == MUTATIONS
    # Most damage is survived: what is asked for lies elsewhere.
    assert MUTATIONS // 2 < figures.opened < MUTATIONS
