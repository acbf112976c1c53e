module fiber

go 1.21
