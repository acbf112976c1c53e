// A gRPC-Gateway and a connect-go service in front of a gRPC server, all in one program: nothing of OpenTelemetry in it.
//
//	grpc_gateway -listen 127.0.0.1:0
//
// GET /v1/cart calls the gRPC server by the gateway; GET /v1/price calls the connect-go service with its own client.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

func get(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := &emptypb.Empty{}
	return in, decode(in)
}

func listen(address string) net.Listener {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fail(err)
	}
	return listener
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address")
	flag.Parse()
	inner := listen("127.0.0.1:0")
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.v1.Cart", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: get}},
	}, struct{}{})
	go server.Serve(inner)
	cart, err := grpc.NewClient(inner.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fail(err)
	}
	outer := listen(*address)
	price := connect.NewClient[emptypb.Empty, emptypb.Empty](
		http.DefaultClient, "http://"+outer.Addr().String()+"/shop.v1.Price/Get")

	gateway := runtime.NewServeMux()
	gateway.HandlePath("GET", "/v1/cart", func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		ctx, err := runtime.AnnotateContext(r.Context(), gateway, r, "/shop.v1.Cart/Get")
		if err == nil {
			err = cart.Invoke(ctx, "/shop.v1.Cart/Get", &emptypb.Empty{}, &emptypb.Empty{})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	gateway.HandlePath("GET", "/v1/price", func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		if _, err := price.CallUnary(r.Context(), connect.NewRequest(&emptypb.Empty{})); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/v1/", gateway)
	mux.Handle("/shop.v1.Price/Get", connect.NewUnaryHandler("/shop.v1.Price/Get",
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return connect.NewResponse(&emptypb.Empty{}), nil
		}))
	fmt.Printf("listening %s\nready\n", outer.Addr())
	fail(http.Serve(outer, mux))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "grpc_gateway:", err)
	os.Exit(1)
}
