module otel-goprobe.benchmarks/server

go 1.24
