module grpc_1_19

go 1.21

require google.golang.org/grpc v1.19.0

require (
	github.com/golang/protobuf v1.3.2 // indirect
	golang.org/x/net v0.17.0 // indirect
	golang.org/x/sys v0.13.0 // indirect
	golang.org/x/text v0.13.0 // indirect
	google.golang.org/genproto v0.0.0-20190819201941-24fa4b261c55 // indirect
)
