// A http.ServeMux with otelhttp about it, and a client of net/http, for `make test-libraries`. The route is the program's
// own word. The id of a request is in its path.
package main

import (
	"net"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

func answer(route string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		official.Route(r.Context(), route)
		w.Write([]byte("answer"))
	}
}

func main() {
	inner := http.NewServeMux()
	inner.HandleFunc("/inner/pages/", answer("/inner/pages/"))
	mux := http.NewServeMux()
	mux.HandleFunc("/files/", answer("/files/"))
	mux.HandleFunc("/static", answer("/static"))
	mux.Handle("/inner/", inner)
	official.Run(
		func(listener net.Listener) { official.Serve(listener, otelhttp.NewHandler(mux, "server")) },
		official.Calls(
			[2]string{"GET", "/files/r1"},
			[2]string{"POST", "/files/r2/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"GET", "/inner/pages/r4"},
		),
	)
}
