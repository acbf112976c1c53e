module fasthttp_server

go 1.21
