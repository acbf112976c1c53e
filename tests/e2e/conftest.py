"""What the end-to-end tests start again and again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from goprograms import go_binary
from harness.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver that listens."""
    with Receiver() as listening:
        yield listening


@pytest.fixture
def own_exe(tmp_path: Path) -> Path:
    """Give the server under a path that no other process was started from, for `--exe`."""
    return Path(shutil.copy(go_binary("http_server"), tmp_path))
