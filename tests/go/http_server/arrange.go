package main

import (
	"context"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"
)

// arrangements are the ways in which programs put routes together. The tests say which http.route each must give.
var arrangements = map[string]func() http.Handler{
	// a ServeMux and nothing else
	"plain": func() http.Handler { return muxAt("") },
	// as logging and authentication do: two copies of the request stand before the mux
	"context": func() http.Handler { return withContext("user", withContext("trace", muxAt(""))) },
	// the mux runs on a goroutine of its own, behind a copy of the request
	"timeout": func() http.Handler { return http.TimeoutHandler(muxAt(""), 20*time.Second, "too slow") },
	// the inner mux sees the path without its prefix
	"strip": func() http.Handler {
		outer := http.NewServeMux()
		outer.Handle("/api/", http.StripPrefix("/api", muxAt("")))
		return outer
	},
	// the inner mux sees the whole path
	"nested": func() http.Handler {
		outer := http.NewServeMux()
		outer.Handle("/v1/", withContext("version", muxAt("/v1")))
		return outer
	},
	// each handler behind two copies, the mux outside
	"inside": func() http.Handler {
		mux := http.NewServeMux()
		for path, page := range pages {
			mux.Handle(path, withContext("user", withContext("trace", page)))
		}
		return mux
	},
	// patterns with a host, which every release of ServeMux has
	"host": func() http.Handler {
		mux := muxAt("")
		mux.HandleFunc("shop.example/basket/", pages["/ok"])
		return mux
	},
	// more routes than anybody counts apart
	"many": func() http.Handler {
		mux := http.NewServeMux()
		for number := 0; number < 10000; number++ {
			mux.HandleFunc(fmt.Sprintf("/many/%d", number), pages["/ok"])
		}
		return mux
	},
	// no mux: no route
	"none": func() http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if page, found := pages[r.URL.Path]; found {
				page(w, r)
			} else {
				http.NotFound(w, r)
			}
		})
	},
	// http.DefaultServeMux, as Handler nil means
	"default": func() http.Handler {
		for path, page := range pages {
			http.HandleFunc(path, page)
		}
		return http.DefaultServeMux
	},
}

func muxAt(prefix string) *http.ServeMux {
	mux := http.NewServeMux()
	for path, page := range pages {
		mux.HandleFunc(prefix+path, page)
	}
	return mux
}

type contextKey string

func withContext(key contextKey, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key, "somebody")))
	})
}

func arrange(name string) (http.Handler, error) {
	if make, found := arrangements[name]; found {
		return make(), nil
	}
	return nil, fmt.Errorf("no arrangement %q; there are %s", name, arrangementNames())
}

func arrangementNames() string {
	var names []string
	for name := range arrangements {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}
