// A net/http server and client with otelhttp about both, for `make test-libraries`. The id of a request is in its path.
package main

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

var address string

// answer takes the status from a query "status=404", and calls from its handler where the path begins with /front/.
func answer(w http.ResponseWriter, r *http.Request) {
	if id, found := strings.CutPrefix(r.URL.Path, "/front/"); found {
		official.Get(r.Context(), address, "GET", "/back/"+id)
	}
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
	w.Write([]byte("answer"))
}

func main() {
	calls := official.Calls(
		[2]string{"GET", "/front/r1"},
		[2]string{"POST", "/page/r2"},
		[2]string{"GET", "/page/r3?status=404"},
		[2]string{"GET", "/page/r4?status=500"},
		[2]string{"HEAD", "/page/r5"},
		[2]string{"DELETE", "/page/r6?status=204"},
		[2]string{"PROPFIND", "/page/r7"},
		[2]string{"GET", "/page/r8?token=secret&x=%20"},
	)
	official.Run(
		func(listener net.Listener) {
			http.Serve(listener, otelhttp.NewHandler(http.HandlerFunc(answer), "server"))
		},
		func(at string) {
			address = at
			calls(at)
			official.Get(context.Background(), "127.0.0.1:1", "GET", "/refused/r9")
		},
	)
}
