module fiber_v3

go 1.21
