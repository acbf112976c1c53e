//go:build own_word

package main

import (
	"net/http"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

// otelmux is a middleware, which mux calls for requests with a route alone: otelhttp about the router, and the route by the
// program's own word.
func instrument(router *mux.Router) {}

func matched(r *http.Request) {
	template, _ := mux.CurrentRoute(r).GetPathTemplate()
	official.Route(r.Context(), template)
}

func wrapped(router *mux.Router) http.Handler { return otelhttp.NewHandler(router, "server") }
