module net_http2

go 1.21
