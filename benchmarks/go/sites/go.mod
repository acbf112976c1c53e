module otel-goprobe.benchmarks/sites

go 1.24
