"""Every unit of C that this project has -> the compiled bundles that its wheel carries.

``python -m otel_goprobe.units``, as root and with BCC, is what ``make bundle`` runs. A unit that is not listed in
`all_units` works too, but has to be compiled on the machine that runs it.
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from otel_goprobe import kernel, probes, tools
from otel_goprobe.errors import GoprobeError
from otel_goprobe.kernel import bundle
from otel_goprobe.tools import registry

if TYPE_CHECKING:
    from otel_goprobe.model import Unit


def all_units() -> tuple[Unit, ...]:
    """Return each unit that a command can load."""
    sources = kernel.bpf_folder()
    of_tools = (registry.unit(tools.tool(stem), sources) for stem in tools.stems())
    return (probes.unit(sources), probes.wire_unit(sources), *of_tools)


def main() -> int:
    """Compile them all into the package, and remove what is of no unit any more; 1 where that fails."""
    try:
        written = [bundle.ship(unit) for unit in all_units()]
    except (GoprobeError, OSError) as error:
        print(f"make bundle: {error}", file=sys.stderr)
        return 1
    for path in bundle.BUNDLES.glob(f"*-{platform.machine()}.bundle"):
        if path not in written:
            path.unlink()
    for path in written:
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
