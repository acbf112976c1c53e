module servemux

go 1.21
