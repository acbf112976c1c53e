// A chi server with otelhttp about it, and a client of net/http, for `make test-libraries`. The route is the program's own
// word: there is no official instrumentation of chi. The id of a request is in its path.
package main

import (
	"net"
	"net/http"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

// answer knows the route that it was registered for.
func answer(route string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		official.Route(r.Context(), route)
		w.Write([]byte("answer"))
	}
}

func abort(route string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("abort") != "" {
				official.Route(r.Context(), route)
				w.WriteHeader(401)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func main() {
	router := chi.NewRouter()
	router.Use(func(next http.Handler) http.Handler { return next })
	router.Get("/users/{id}", answer("/users/{id}"))
	router.Get("/files/*", answer("/files/*"))
	router.Get("/static", answer("/static"))
	router.Route("/group/{name}", func(group chi.Router) {
		group.Post("/items/{id:r[0-9]+}", answer("/group/{name}/items/{id:r[0-9]+}"))
		group.With(abort("/group/{name}/guarded/{id}")).Get("/guarded/{id}", answer(""))
		deeper := chi.NewRouter()
		deeper.Get("/items/{id}", answer("/group/{name}/deeper/items/{id}"))
		group.Mount("/deeper", deeper)
	})
	official.Run(
		func(listener net.Listener) { official.Serve(listener, otelhttp.NewHandler(router, "server")) },
		official.Calls(
			[2]string{"GET", "/users/r1"},
			[2]string{"GET", "/files/r2/and/more"},
			[2]string{"GET", "/static"},
			[2]string{"GET", "/nowhere/r3"},
			[2]string{"DELETE", "/users/r4"},
			[2]string{"POST", "/group/a/items/r5"},
			[2]string{"GET", "/group/a/guarded/r6?abort=1"},
			[2]string{"GET", "/group/b/deeper/items/r7"},
		),
	)
}
