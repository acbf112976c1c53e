"""The right parent or none, never a wrong one: every span of every request against the services' own logs.

`make test` takes a few hundred requests of four scenarios; `make test-propagation` 10,007 of each.
"""

from __future__ import annotations

import pytest
from goprograms import go_command, go_version
from propagation import page
from propagation.run import HEAD, run, shown
from propagation.scenarios import BY_NAME, SCENARIOS, Scenario

pytestmark = pytest.mark.root

FEW = 307
IN_BRIEF = ("fan-out", "background", "background-lazy-pool", "two-agents")


@pytest.mark.parametrize("name", IN_BRIEF)
def test_parents_in_brief(name: str) -> None:
    """A few hundred requests, 16 at once."""
    result = run(BY_NAME[name], requests=FEW)
    print(f"{HEAD}\n{shown(result)}")
    assert not result.failures()


@pytest.mark.slow
def test_parents_with_the_oldest_go() -> None:
    """Go 1.19 has other maps, and doesn't tell who started a goroutine."""
    result = run(BY_NAME["context"], requests=FEW, go="1.19")
    print(f"{HEAD}\n{shown(result)}")
    assert not result.failures()


@pytest.mark.propagation
@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_parents(scenario: Scenario) -> None:
    """10,007 requests, 16 at once."""
    result = run(scenario)
    print(f"{HEAD}\n{shown(result)}")
    page.record(result, go_version(go_command()))
    assert not result.failures()
