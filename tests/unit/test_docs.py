"""The documents say what is so: their links, make targets, options, messages and drop reasons exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_goprobe import probes, tools
from otel_goprobe.commands import doctor, inspect, run, tool
from otel_goprobe.commands import list as list_command
from otel_goprobe.kernel.capabilities import REQUIRED_CAPABILITIES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
SOURCES = "\n".join(path.read_text() for path in [*ROOT.glob("otel_goprobe/**/*.py"), *ROOT.glob("scripts/*")])
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Each relative link names a file of the repository, or a heading of a document."""
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {each.lower().replace(" ", "-") for each in headings}, link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    """`make x` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"(?:`|^\$ )make ([a-z -]+)", document.read_text(), re.MULTILINE):
        assert set(line.split()) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_exist(document: Path) -> None:
    """A `--option` in code belongs to a command of this project, or to one of the few others that are named."""
    of_tools = (tool.command_of(tools.tool(stem)) for stem in tools.stems())
    commands = (run.command, doctor.command, list_command.command, inspect.command, *of_tools)
    known = {name for command in commands for parameter in command.params for name in parameter.opts}
    known |= {name for file in ROOT.glob("benchmarks/*.py") for name in re.findall(r'"(--[a-z-]+)"', file.read_text())}
    others = {"--build", "--strict", "--help", "--stat", "--format", "--diff-filter"}
    code = " ".join(re.findall(r"```.*?```|`[^`]*`", document.read_text(), re.DOTALL))
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]*", code)) - {"--listen"} - others <= known


def test_every_drop_reason_is_explained() -> None:
    """Reasons of the kernel's counters and of the Python sources have a row each, and no row is of the past."""
    calls = re.findall(r"\.dropped\(([^)]*)\)|Outcome\([^{\n]*{([^}]*)}", SOURCES)
    counted = {name for call in calls for name in re.findall(r'"(\w+)"', "".join(call))}
    assert set(re.findall(r"^\| `(\w+)` \|", TROUBLESHOOTING, re.MULTILINE)) == counted | set(probes.drops())


@pytest.mark.parametrize("message", re.findall(r"\*\*`([^`]+)`\*\*", TROUBLESHOOTING))
def test_explained_messages_are_ours(message: str) -> None:
    """What stands between the ellipses of a quoted message stands in the sources too."""
    pieces = [piece.strip() for piece in re.split(r"…", message)]
    assert all(piece in SOURCES for piece in pieces if len(piece) > 3), pieces


def test_sidecar_has_exactly_the_required_capabilities() -> None:
    """docker-compose.yml gives the agent what kernel/capabilities.py says it needs."""
    compose = (ROOT / "docker-compose.yml").read_text()
    given = re.findall(r"^ +- ([A-Z_]+) +#", compose[compose.index("cap_add:") :], re.MULTILINE)
    assert sorted(f"CAP_{name}" for name in given) == sorted(capability.name for capability in REQUIRED_CAPABILITIES)
