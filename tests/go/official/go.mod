module official

go 1.21
