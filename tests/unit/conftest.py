"""Go executables that more than one file of tests reads, built once and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import goprograms
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def server_plain() -> Path:
    """Give a net/http program with symbols and DWARF."""
    return goprograms.go_binary("http_server")


@pytest.fixture(scope="session")
def minimal() -> Path:
    """Give the smallest Go program there is, stripped: 1 MB."""
    return goprograms.go_binary("minimal", strip=True)


@pytest.fixture(scope="session")
def minimal_arm64() -> Path:
    """Give the same program for arm64."""
    return goprograms.go_binary("minimal", strip=True, goarch="arm64")
