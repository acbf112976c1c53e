module example.com/http_server

go 1.21
