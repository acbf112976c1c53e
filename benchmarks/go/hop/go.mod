module otel-goprobe.benchmarks/hop

go 1.24
