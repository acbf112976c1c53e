module example.com/shop/network

go 1.21
