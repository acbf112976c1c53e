module fasthttp_client

go 1.21
