"""What a start does not wait for, and whose code its children run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import otel_goprobe
from otel_goprobe import kernel
from otel_goprobe.capacity import map_sizes
from otel_goprobe.config import Flags, from_environment_and_flags

if TYPE_CHECKING:
    from pathlib import Path

EXPORTERS = ("google.protobuf", "grpc", "http.client", "opentelemetry.sdk", "requests", "rich")
ANALYSIS = ("capstone", "elftools")
"""Of an executable that wasn't seen before."""
AFTER_THE_FIRST_PROGRAMS = ("numpy", "psutil", "otel_goprobe.gobinary", "otel_goprobe.probes", "otel_goprobe.model")
"""Imported while the kernel verifies."""


def imported_with(*modules: str) -> set[str]:
    """Return all that is imported with these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_probes_are_attached_before_the_exporters_are_imported() -> None:
    """Nothing of this is imported with the agent; it is when it is first used."""
    imported = imported_with("otel_goprobe.agent", "otel_goprobe.start")
    assert "otel_goprobe.agent" in imported
    assert not {"bcc", *EXPORTERS, *ANALYSIS} & imported


def test_programs_are_verified_before_numpy_is_imported() -> None:
    """What names them, and loads them, does without the slow half of the agent."""
    imported = imported_with("otel_goprobe.start", "otel_goprobe.kernel.loader")
    assert not set(AFTER_THE_FIRST_PROGRAMS) & imported


def test_every_name_of_the_kernel_package_is_there() -> None:
    """Its modules are imported by name, as they are asked for."""
    assert all(getattr(kernel, name) is not None for name in kernel.__all__)


def test_maps_of_requests_are_known_by_their_names() -> None:
    """No library has to be imported for their sizes."""
    config = from_environment_and_flags(Flags(max_in_flight=23), {})
    sizes = map_sizes(config, ["http_server_inflight", "grpc_client_inflight", "in_flight_elements", "routes"])
    assert (sizes["http_server_inflight"], sizes["grpc_client_inflight"]) == (23, 23)
    assert not {"in_flight_elements", "routes"} & sizes.keys()


def test_a_child_runs_the_code_of_its_parent(tmp_path: Path) -> None:
    """Also if another otel_goprobe is installed, and not where the user happens to stand."""
    copy, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    shutil.copytree(otel_goprobe.__path__[0], copy / "otel_goprobe", ignore=shutil.ignore_patterns("bundles"))
    with (copy / "otel_goprobe" / "analysis.py").open("a") as source:
        source.write('\ndef main():\n    sys.stdout.buffer.write(b"[]\\nthe copy")\n')
    elsewhere.mkdir()
    (elsewhere / "otel_goprobe.py").write_text("raise SystemExit('not this one')")
    code = (
        f"import sys; sys.path.insert(0, {str(copy)!r})\n"
        "from otel_goprobe import analysis; print(analysis._spawned('/dev/null').decode())"
    )
    command = [sys.executable, "-P", "-c", code]
    assert subprocess.check_output(command, cwd=elsewhere, text=True) == "the copy\n"
