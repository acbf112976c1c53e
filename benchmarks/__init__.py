"""What otel-goprobe costs: sites.py a probe's hit, overhead.py a request and a span, encode.py the encoding.

Each is run from the project's folder as a module, ``python -m benchmarks.overhead``, and takes ``--help``.
"""
