"""otel-goprobe: OpenTelemetry traces from Go programs nobody has to change, by BPF uprobes."""

__version__ = "0.1.0"
