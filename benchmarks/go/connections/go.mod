module otel-goprobe.benchmarks/connections

go 1.24
