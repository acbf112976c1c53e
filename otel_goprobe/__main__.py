"""``python -m otel_goprobe``."""

import sys

from otel_goprobe.cli import main

sys.exit(main())
