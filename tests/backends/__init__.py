"""Real receivers of traces for the tests and the demo: a Jaeger and an OpenTelemetry Collector."""
