"""The graph of services: what Graphviz makes of it."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_goprobe.emit.service_map import Edge, dot, svg
from otel_goprobe.errors import UsageError

EDGES = [
    Edge("front", "cart", "1,207 to tcp 8080"),
    Edge("cart", "10.0.0.9:5432"),
    Edge("cart", "evil.example.org:443", "3", finding=True),
]


def test_the_text_is_the_same_in_any_order() -> None:
    """And says each edge once."""
    assert dot(EDGES) == dot([*reversed(EDGES), EDGES[0]])
    assert dot(EDGES).count("->") == 3
    assert '"front" [shape=box' in dot(EDGES)
    assert '"10.0.0.9:5432";' in dot(EDGES)
    assert '"cart" -> "evil.example.org:443" [label="3" color="#c62828"' in dot(EDGES)


def test_nothing_seen_is_an_empty_graph() -> None:
    """Which is one all the same."""
    assert dot([]).startswith("digraph services {")
    assert "->" not in dot([])


def test_graphviz_reads_what_was_meant() -> None:
    """Nodes and edges as it sees them."""
    done = subprocess.run(["dot", "-Tjson0"], input=dot(EDGES), capture_output=True, text=True, check=True)
    graph = json.loads(done.stdout)
    names = [node["name"] for node in graph["objects"]]
    assert {(names[edge["tail"]], names[edge["head"]]) for edge in graph["edges"]} == {
        (edge.source, edge.destination) for edge in EDGES
    }
    assert "evil.example.org:443" in svg(EDGES)


@settings(max_examples=15, deadline=None)
@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_any_name_is_one(name: str) -> None:
    """Quotes, backslashes, line breaks and HTML's characters end no string."""
    text = dot([Edge("a", name, name)])
    done = subprocess.run(["dot", "-Tjson0"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["objects"]) == (1 if name == "a" else 2)


def test_without_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, and what to do."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="apt install graphviz"):
        svg(EDGES)
