// A server and a client that speak HTTP/2, with otelhttp about both, for `make test-libraries`: of net/http, over TLS or
// with the tag h2c without, or of golang.org/x/net/http2 (tests/go/x_net_http2). The id of a request is in its path.
package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

var (
	client  http.Client
	address string
)

func get(ctx context.Context, method, path string) {
	request, err := http.NewRequestWithContext(ctx, method, scheme+"://"+address+path, nil)
	if err != nil {
		panic(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return
	}
	if response.ProtoMajor != 2 {
		panic(response.Proto)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

// answer takes the status from a query "status=404", and calls from its handler where the path begins with /front/.
func answer(w http.ResponseWriter, r *http.Request) {
	if id, found := strings.CutPrefix(r.URL.Path, "/front/"); found {
		get(r.Context(), "GET", "/back/"+id)
	}
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
	w.Write([]byte("answer"))
}

func main() {
	server := httptest.NewUnstartedServer(otelhttp.NewHandler(http.HandlerFunc(answer), "server"))
	client.Transport = otelhttp.NewTransport(transport())
	official.Run(
		func(listener net.Listener) {
			server.Listener.Close()
			server.Listener = listener
			start(server)
		},
		func(at string) {
			address = at
			for _, one := range [][2]string{
				{"GET", "/front/r1"},
				{"POST", "/page/r2"},
				{"GET", "/page/r3?status=404"},
				{"GET", "/page/r4?status=500"},
				{"HEAD", "/page/r5"},
				{"DELETE", "/page/r6?status=204"},
				{"PROPFIND", "/page/r7"},
				{"GET", "/page/r8?token=secret&x=%20"},
			} {
				get(context.Background(), one[0], one[1])
			}
			address = "127.0.0.1:1"
			get(context.Background(), "GET", "/refused/r9")
		},
	)
}
