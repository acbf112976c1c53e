package main

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// serverOptions has any method of load.Front and load.Back be answered, so that a call's id can be its method.
func serverOptions() []grpc.ServerOption {
	var options []grpc.ServerOption
	if *ids {
		options = append(options, grpc.UnknownServiceHandler(identified))
	}
	return append(options, workerOptions()...)
}

var (
	backend *grpc.ClientConn
	queue   = make(chan func(), 8)
)

// work does what requests have queued, for all of them.
func work() {
	for do := range queue {
		do()
	}
}

// identified answers METHOD of /load.Back/METHOD with a code that its first digit tells; /load.Front/METHOD calls that,
// with its own context, or without, or on another goroutine, as the last digit tells.
func identified(_ interface{}, stream grpc.ServerStream) error {
	start, in := monotonic(), &order{}
	method, _ := grpc.MethodFromServerStream(stream)
	method = strings.TrimPrefix(method, "/")
	err := stream.RecvMsg(in)
	if id := strings.TrimPrefix(method, "load.Front/"); err == nil && id != method && backend != nil {
		err = callBack(stream.Context(), id)
	} else if err == nil {
		err = wished(method)
	}
	if err == nil {
		err = stream.SendMsg(in)
	}
	return answered(stream.Context(), method, start, err)
}

func callBack(ctx context.Context, id string) error {
	done := make(chan error, 1)
	if *queued {
		queue <- func() { done <- unary(context.Background(), backend, "load.Back/"+id, &order{}) }
		return <-done
	}
	switch id[len(id)-1] % 3 {
	case 0:
		return unary(ctx, backend, "load.Back/"+id, &order{})
	case 1:
		return unary(context.Background(), backend, "load.Back/"+id, &order{})
	default:
		go func() { done <- unary(ctx, backend, "load.Back/"+id, &order{}) }()
		return <-done
	}
}

// wished returns an error for some ids: the first digit.
func wished(method string) error {
	id := method[strings.LastIndexByte(method, '/')+1:]
	if code := id[0] - '0'; code > 0 && code < 10 {
		return status.Error(codes.Code(code), "as the id says")
	}
	return nil
}
