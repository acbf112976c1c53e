// A httprouter server with otelhttp about it, and a client of net/http, for `make test-libraries`. The route is the
// program's own word: there is no official instrumentation of httprouter. The id of a request is in its path.
package main

import (
	"net"
	"net/http"

	"github.com/julienschmidt/httprouter"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

func main() {
	router := httprouter.New()
	for _, route := range [][2]string{
		{"GET", "/users/:id"},
		{"GET", "/users/:id/books/:book/pages/:page"},
		{"GET", "/files/:id/*path"},
		{"GET", "/static"},
		{"POST", "/static/:id"},
	} {
		router.Handle(route[0], route[1], func(route string) httprouter.Handle {
			return func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
				official.Route(r.Context(), route)
				w.Write([]byte("answer"))
			}
		}(route[1]))
	}
	official.Run(
		func(listener net.Listener) { official.Serve(listener, otelhttp.NewHandler(router, "server")) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/users/r2/books/books/pages/r2"},
			[2]string{"GET", "/files/r3/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r4"},
			[2]string{"DELETE", "/users/r5"},
			[2]string{"POST", "/static/r6%20and%2Fmore"},
			[2]string{"GET", "/users/r7/"},
			[2]string{"POST", "/static/r8"},
		),
	)
}
