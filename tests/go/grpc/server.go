package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// serve listens and returns the address.
func serve() net.Addr {
	listener, err := net.Listen("tcp", *listenAddress)
	if err != nil {
		fail(err)
	}
	if *back != "" {
		backend = dial(*back)
		go work()
	}
	if *overHTTP {
		server := &http.Server{Handler: register(grpc.NewServer()), TLSConfig: selfSigned()}
		server.TLSConfig.NextProtos = []string{"h2"}
		go server.ServeTLS(listener, "", "")
		return listener.Addr()
	}
	options := serverOptions()
	if *secure {
		options = append(options, grpc.Creds(credentials.NewTLS(selfSigned())))
	}
	go register(grpc.NewServer(options...)).Serve(listener)
	return listener.Addr()
}

func register(server *grpc.Server) *grpc.Server {
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.v1.Cart",
		HandlerType: (*interface{})(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Get", Handler: get}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Watch", Handler: watch, ServerStreams: true},
			{StreamName: "Upload", Handler: upload, ClientStreams: true},
			{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true},
		},
	}, struct{}{})
	return server
}

// answered logs a call and returns its error.
func answered(ctx context.Context, method string, start int64, err error) error {
	entry := line{Side: "server", Method: method, Start: start, Code: codeOf(err)}
	if other, ok := peer.FromContext(ctx); ok {
		entry.Peer = other.Addr.String()
	}
	entry.End = monotonic()
	entry.print()
	return err
}

// panicCode asks a handler to panic.
const panicCode = 99

// recovered is what a recovering interceptor does.
func recovered(err *error) {
	if !*recovering {
		return
	}
	if recover() != nil {
		*err = status.Error(codes.Internal, "panicked")
	}
}

// obey does what a message asks for, as long as the caller waits.
func obey(ctx context.Context, o *order) (err error) {
	defer recovered(&err)
	if o.Code == panicCode {
		panic("as you wish")
	}
	select {
	case <-time.After(time.Duration(o.SleepMS) * time.Millisecond):
	case <-ctx.Done():
		if ctx.Err() == context.DeadlineExceeded {
			return status.Error(codes.DeadlineExceeded, "too late")
		}
		return status.Error(codes.Canceled, "not wanted any more")
	}
	if o.Code != 0 {
		return status.Error(codes.Code(o.Code), "as you wish")
	}
	return nil
}

// enough refuses a call that hasn't been repeated as often as its message says: gRPC tells how often it was.
func enough(ctx context.Context, o *order) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if before, _ := strconv.Atoi(strings.Join(md["grpc-previous-rpc-attempts"], "")); before < int(o.Count) {
		return status.Error(codes.Unavailable, "once more")
	}
	return nil
}

func get(_ interface{}, ctx context.Context, decode func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
	start, in := monotonic(), &order{}
	err := decode(in)
	if err == nil {
		err = enough(ctx, in)
	}
	if err == nil {
		err = obey(ctx, in)
	}
	return in, answered(ctx, "shop.v1.Cart/Get", start, err)
}

func watch(_ interface{}, stream grpc.ServerStream) error {
	start, in := monotonic(), &order{}
	err := stream.RecvMsg(in)
	for i := uint32(0); i < in.Count && err == nil; i++ {
		err = stream.SendMsg(in)
	}
	if err == nil {
		err = obey(stream.Context(), in)
	}
	return answered(stream.Context(), "shop.v1.Cart/Watch", start, err)
}

func upload(_ interface{}, stream grpc.ServerStream) error {
	start, in := monotonic(), &order{}
	var err error
	for err == nil {
		err = stream.RecvMsg(in)
	}
	if err == io.EOF {
		if err = obey(stream.Context(), in); err == nil {
			err = stream.SendMsg(in)
		}
	}
	return answered(stream.Context(), "shop.v1.Cart/Upload", start, err)
}

// chat answers each message, until the client has no more or asks for an end.
func chat(_ interface{}, stream grpc.ServerStream) error {
	start, in := monotonic(), &order{}
	var err error
	for err == nil {
		if err = stream.RecvMsg(in); err != nil {
			break
		}
		if err = enough(stream.Context(), in); err != nil {
			break
		}
		if err = obey(stream.Context(), in); err == nil {
			err = stream.SendMsg(in)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return answered(stream.Context(), "shop.v1.Cart/Chat", start, err)
}

// codeOf names the status that gRPC makes of a handler's error.
func codeOf(err error) string {
	if s, ok := status.FromError(err); ok {
		return codeName(s.Code())
	}
	switch err {
	case context.DeadlineExceeded:
		return codeName(codes.DeadlineExceeded)
	case context.Canceled:
		return codeName(codes.Canceled)
	}
	return codeName(codes.Unknown)
}

// codeName turns DeadlineExceeded into DEADLINE_EXCEEDED.
func codeName(code codes.Code) string {
	if code == codes.OK {
		return "OK"
	}
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var name strings.Builder
	for i, r := range code.String() {
		if i > 0 && 'A' <= r && r <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(r)
	}
	return strings.ToUpper(name.String())
}
