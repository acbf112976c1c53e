module echo_v5

go 1.21
