// Package official is what the programs of `make test-libraries` share: OpenTelemetry's SDK with an exporter to a file,
// and an order of things. Which versions of the SDK and of the instrumentation, the program's library.toml says.
//
//	PROGRAM -spans FILE     # prints "listening ADDRESS" and "ready"; asked for it by a line on stdin it makes its
//	                        # calls one after another and prints "called"; ends with its stdin, the spans written
package official

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Run serves on a port of its own, and makes the calls when it is asked to.
func Run(serve func(net.Listener), call func(address string)) {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	path := flag.String("spans", os.DevNull, "file for the spans, JSON")
	flag.Parse()
	file, err := os.Create(*path)
	check(err)
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(file))
	check(err)
	provider := trace.NewTracerProvider(trace.WithSyncer(exporter))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	listener, err := net.Listen("tcp", *listen)
	check(err)
	go serve(listener)
	fmt.Printf("listening %s\nready\n", listener.Addr())
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		call(listener.Addr().String())
		fmt.Println("called")
	}
	check(provider.Shutdown(context.Background()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Client is net/http's, with its official instrumentation; it follows no redirects.
var Client = http.Client{
	Transport:     otelhttp.NewTransport(transport()),
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Get asks for "METHOD PATH" and leaves an answer aside, as well as an error.
func Get(ctx context.Context, address, method, path string) {
	request, err := http.NewRequestWithContext(ctx, method, scheme()+"://"+address+path, nil)
	check(err)
	response, err := Client.Do(request)
	if err != nil {
		return
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

// Calls makes such requests one after another.
func Calls(methodsAndPaths ...[2]string) func(address string) {
	return func(address string) {
		for _, one := range methodsAndPaths {
			Get(context.Background(), address, one[0], one[1])
		}
	}
}

// Route is the program's own word for the route of the request that it works on, where what instruments it officially
// knows no routes.
func Route(ctx context.Context, route string) {
	oteltrace.SpanFromContext(ctx).SetAttributes(attribute.String("http.route", route))
}
