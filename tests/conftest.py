"""What every test may ask for; which tests run when nobody says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import goprograms
import pytest

from otel_goprobe import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWN_TARGETS = ("slow", "versions", "jaeger", "wild", "collector", "wheel", "propagation", "libraries")
"""Markers of tests that take minutes: `make test-versions` and so on; a plain `pytest` leaves them out."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has a make target of its own, unless -m or the test's own name asks for it."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in OWN_TARGETS)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs root where there is none; a skip in CI is a failure."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("needs root, and CI has to give it")
        pytest.skip("needs root: sudo make test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what `cli.main` does to the agent's logger in this process: it would keep lines from `caplog`."""
    handlers, level, propagate = [*log.LOGGER.handlers], log.LOGGER.level, log.LOGGER.propagate
    yield
    log.LOGGER.handlers[:], log.LOGGER.propagate = handlers, propagate
    log.LOGGER.setLevel(level)


@pytest.fixture(scope="session")
def go_binary() -> Callable[..., Path]:
    """Give `goprograms.go_binary`: a program of tests/go, built as asked, kept in the cache."""
    return goprograms.go_binary
