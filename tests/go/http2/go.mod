module example.com/http2

go 1.21

require golang.org/x/net v0.28.0

require golang.org/x/text v0.17.0 // indirect
