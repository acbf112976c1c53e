module otel-goprobe.benchmarks/producer

go 1.24
