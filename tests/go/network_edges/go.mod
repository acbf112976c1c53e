module example.com/shop/network_edges

go 1.21
