// A server of gorilla/mux with otelhttp about it, and a client of net/http, for `make test-libraries`. The route is the
// program's own word: otelmux is a middleware, which mux calls for requests with a route alone. The id of a request is in
// its path.
package main

import (
	"net"
	"net/http"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

func matched(r *http.Request) {
	template, _ := mux.CurrentRoute(r).GetPathTemplate()
	official.Route(r.Context(), template)
}

func abort(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("abort") != "" {
			matched(r)
			w.WriteHeader(401)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, r *http.Request) {
	matched(r)
	w.Write([]byte("answer"))
}

func main() {
	router := mux.NewRouter()
	router.HandleFunc("/users/{id}", answer).Methods("GET")
	router.HandleFunc("/static", answer)
	router.PathPrefix("/files/").HandlerFunc(answer)
	group := router.PathPrefix("/group/{name}").Subrouter()
	group.HandleFunc("/items/{id:r[0-9]+}", answer).Methods("POST")
	deeper := group.PathPrefix("/deeper").Subrouter()
	deeper.Use(abort)
	deeper.HandleFunc("/items/{id}", answer)
	official.Run(
		func(listener net.Listener) { official.Serve(listener, otelhttp.NewHandler(router, "server")) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"DELETE", "/users/r4"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"GET", "/group/a/deeper/items/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
			[2]string{"GET", "/group/b/nowhere/r8"},
		),
	)
}
