//go:build go1.22

package main

import (
	"fmt"
	"net/http"
)

// Patterns with methods, hosts and wildcards. A main module that says go 1.21 takes them for plain paths.
func init() {
	arrangements["method"] = func() http.Handler {
		mux := muxAt("")
		show := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.PathValue("id")) }
		mux.HandleFunc("GET /users/{id}", show)
		mux.HandleFunc("POST /users/{id}", show)
		mux.HandleFunc("GET shop.example/orders/{id}", show)
		mux.HandleFunc("/files/{rest...}", show)
		mux.HandleFunc("/exact/{$}", show)
		return withContext("user", mux)
	}
}
