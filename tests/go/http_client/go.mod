module example.com/http_client

go 1.21
