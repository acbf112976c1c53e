// A gRPC server and client with otelgrpc about both, for `make test-libraries`. No generated code: messages are texts, a
// call's is the code that it is to end with.
package main

import (
	"context"
	"io"
	"net"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"official"
)

// text is how messages are encoded: *string.
type text struct{}

func (text) Name() string { return "text" }

func (text) Marshal(v interface{}) ([]byte, error) { return []byte(*v.(*string)), nil }

func (text) Unmarshal(data []byte, v interface{}) error {
	*v.(*string) = string(data)
	return nil
}

// obey ends as the message says, a number of one letter from "a" for OK.
func obey(ctx context.Context, message string) error {
	if message == "sleep" {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	if message > "a" {
		return status.Error(codes.Code(message[0]-'a'), "as you wish")
	}
	return nil
}

func get(_ interface{}, ctx context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
	var in string
	if err := decode(&in); err != nil {
		return nil, err
	}
	if in == "front" {
		invoke(ctx, "Get", "a")
	}
	return &in, obey(ctx, in[:1])
}

func wait(_ interface{}, ctx context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
	in := "sleep"
	return &in, obey(ctx, in)
}

func chat(_ interface{}, stream grpc.ServerStream) error {
	var in string
	for {
		if err := stream.RecvMsg(&in); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := obey(stream.Context(), in); err != nil {
			return err
		}
		if err := stream.SendMsg(&in); err != nil {
			return err
		}
	}
}

func serve(listener net.Listener) {
	server := grpc.NewServer(grpc.StatsHandler(otelgrpc.NewServerHandler()))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.v1.Cart",
		HandlerType: (*interface{})(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: get}, {MethodName: "Wait", Handler: wait}},
		Streams:     []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true}},
	}, struct{}{})
	server.Serve(listener)
}

var connection *grpc.ClientConn

func dial(address string) *grpc.ClientConn {
	made, err := grpc.Dial(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("text")))
	if err != nil {
		panic(err)
	}
	return made
}

func invoke(ctx context.Context, method, message string) {
	var answer string
	connection.Invoke(ctx, "/shop.v1.Cart/"+method, &message, &answer)
}

func converse(messages ...string) {
	stream, err := connection.NewStream(context.Background(),
		&grpc.StreamDesc{StreamName: "Chat", ServerStreams: true, ClientStreams: true}, "/shop.v1.Cart/Chat")
	var answer string
	for _, message := range messages {
		if err == nil {
			err = stream.SendMsg(&message)
		}
		if err == nil {
			err = stream.RecvMsg(&answer)
		}
	}
	if err == nil {
		stream.CloseSend()
		stream.RecvMsg(&answer)
	}
}

func main() {
	encoding.RegisterCodec(text{})
	background := context.Background()
	official.Run(serve, func(address string) {
		connection = dial(address)
		invoke(background, "Get", "a")
		invoke(background, "Get", "front")
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			invoke(background, "Get", string(rune('a'+code)))
		}
		converse("a", "a", "a")
		converse("a", "f")
		soon, cancel := context.WithTimeout(background, 50*time.Millisecond)
		invoke(soon, "Wait", "a")
		cancel()
		time.Sleep(50 * time.Millisecond)
	})
}
