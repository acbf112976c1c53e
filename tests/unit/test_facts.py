"""What C must know of an executable: members of ``struct target``, which all libraries share."""

from __future__ import annotations

from otel_goprobe.probes.registry import PARENT_FACTS, SHARED_FACTS, libraries


def test_a_member_is_one_fact() -> None:
    """Two libraries that ask for one thing may call it alike; two things called alike would be mixed up."""
    facts = (*SHARED_FACTS, *PARENT_FACTS, *(fact for library in libraries() for fact in library.facts))
    asked: dict[str, set[str]] = {}
    for fact in facts:
        asked.setdefault(fact.member, set()).add(fact.of)
    assert {member: of for member, of in asked.items() if len(of) > 1} == {}
