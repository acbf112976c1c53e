module otelgrpc

go 1.21
