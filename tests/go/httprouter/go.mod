module httprouter

go 1.21
