module x_net_http2

go 1.21
