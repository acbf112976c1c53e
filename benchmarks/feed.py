"""As many spans to a receiver as the target has requests, encoded beforehand: what a receiver alone costs.

``python -m benchmarks.feed ENDPOINT COUNTER``; overhead.py starts it. Every 100 ms it sends what the counter has grown
by, put together from requests of 1, 2, 4, … 8192 spans (two export requests, one behind the other, are one as well).
"""

from __future__ import annotations

import sys
import time

from benchmarks.processes import SharedCounter
from benchmarks.sample import RESOURCE, columns
from otel_goprobe.config import OtlpConfig
from otel_goprobe.export import Encoder
from otel_goprobe.export.transport_http import HttpTransport

LARGEST = 13
INTERVAL_S = 0.1


def main() -> None:
    """Feed until the end."""
    endpoint, path = sys.argv[1:]
    counter = SharedCounter(path)
    encoder = Encoder()
    pieces = [encoder.encode(columns(1 << power), {0: RESOURCE})[0].data for power in range(LARGEST + 1)]
    transport = HttpTransport(OtlpConfig(f"{endpoint}/v1/traces"))
    sent = counter.value
    print("ready", flush=True)
    while True:
        time.sleep(INTERVAL_S)
        due = counter.value - sent
        while due > 0:
            batch = min(due, 1 << LARGEST)
            request = b"".join(piece for power, piece in enumerate(pieces) if batch >> power & 1)
            answer = transport.send(request, 10.0)
            if answer.fault:
                raise SystemExit(f"the receiver: {answer}")
            sent += batch
            due -= batch


if __name__ == "__main__":
    main()
