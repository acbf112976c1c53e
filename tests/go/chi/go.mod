module chi

go 1.21
