module gorilla_mux

go 1.21
