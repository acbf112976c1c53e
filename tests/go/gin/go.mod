module gin

go 1.21
