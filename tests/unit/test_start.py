"""What a start does not wait for."""

from __future__ import annotations

import subprocess
import sys

EXPORTERS = ("google.protobuf", "grpc", "http.client", "opentelemetry.sdk", "requests", "rich")
ANALYSIS = ("capstone", "elftools")
"""Of an executable that wasn't seen before."""


def test_probes_are_attached_before_the_exporters_are_imported() -> None:
    """Nothing of this is imported with the agent; it is when it is first used."""
    code = "import sys; from otel_goprobe import agent, start; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "otel_goprobe.agent" in imported
    assert not {"bcc", *EXPORTERS, *ANALYSIS} & set(imported)
