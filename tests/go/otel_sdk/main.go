// A service that instruments itself with OpenTelemetry's own SDK, to stand on either side of ones that don't: otelhttp
// about its server and its client, spans to a file as JSON, context by traceparent. Logs as tests/go/propagation does.
//
//	otel_sdk -log FILE -spans FILE                # a service that answers /call/ID.NUMBER
//	otel_sdk -log FILE -spans FILE -to URL        # a service that serves /front/ID by calling the other
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

const idHeader = "X-Request-Id"

var (
	listenAddress = flag.String("listen", "127.0.0.1:0", "address")
	to            = flag.String("to", "", "URL of the service to call, without a path; empty: call none")
	logPath       = flag.String("log", os.DevNull, "file for a JSON line a request and a call")
	spansPath     = flag.String("spans", os.DevNull, "file for the spans")
)

// line is as in tests/go/propagation/log.go.
type line struct {
	Event       string   `json:"event"`
	ID          string   `json:"id"`
	Path        string   `json:"path"`
	Traceparent []string `json:"traceparent,omitempty"`
}

type service struct {
	mu     sync.Mutex
	lines  *json.Encoder
	client http.Client
}

func (s *service) add(entry line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines.Encode(entry)
}

// ServeHTTP is inside otelhttp's handler: the header that came is still there.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(idHeader)
	s.add(line{Event: "served", ID: id, Path: r.URL.Path, Traceparent: r.Header.Values("Traceparent")})
	if strings.HasPrefix(r.URL.Path, "/front/") {
		s.call(r.Context(), id)
	}
	fmt.Fprintln(w, id)
}

func (s *service) call(ctx context.Context, id string) {
	path := "/call/" + id + ".0"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, *to+path, nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set(idHeader, id)
	response, err := s.client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	s.add(line{Event: "called", ID: id, Path: path})
}

func create(path string) *os.File {
	file, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	return file
}

func main() {
	flag.Parse()
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(create(*spansPath)))
	if err != nil {
		log.Fatal(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	s := &service{
		lines:  json.NewEncoder(create(*logPath)),
		client: http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport)},
	}
	listener, err := net.Listen("tcp", *listenAddress)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: otelhttp.NewHandler(s, "server")}
	go server.Serve(listener)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Printf("listening %s\nready\n", listener.Addr())
	<-stop
	server.Shutdown(context.Background())
	if err := provider.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
