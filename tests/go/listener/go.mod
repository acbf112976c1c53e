module example.com/shop/listener/v2

go 1.21
