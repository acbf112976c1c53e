package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// parents is a server each of whose pages sends requests in another way; each carries the id of the request that it is
// sent for: /ctx?id=7 sends /ok?id=7.
func parents() http.Handler {
	started := newPool(4)
	var once sync.Once
	var lazy pool
	mux := http.NewServeMux()
	for path, handler := range map[string]func(context.Context, string){
		"/ctx":                call,
		"/background":         func(_ context.Context, id string) { call(context.Background(), id) },
		"/fan-out":            func(ctx context.Context, id string) { inGoroutines(3, func() { call(ctx, id) }) },
		"/fan-out-background": func(_ context.Context, id string) { inGoroutines(3, func() { call(context.Background(), id) }) },
		"/fan-out-waited": func(_ context.Context, id string) {
			time.Sleep(time.Millisecond) // it may go on on another P
			inGoroutines(3, func() { call(context.Background(), id) })
		},
		"/many-background":       func(_ context.Context, id string) { inGoroutines(40, func() { call(context.Background(), id) }) },
		"/two-levels":            func(ctx context.Context, id string) { twoLevels(ctx, id) },
		"/two-levels-background": func(_ context.Context, id string) { twoLevels(context.Background(), id) },
		"/pool":                  func(ctx context.Context, id string) { started.do(ctx, id) },
		"/pool-background":       func(_ context.Context, id string) { started.do(context.Background(), id) },
		"/lazy-pool-background": func(_ context.Context, id string) {
			once.Do(func() { lazy = newPool(4) })
			lazy.do(context.Background(), id)
		},
		"/wrapped": func(ctx context.Context, id string) { call(wrapped(ctx), id) },
		"/afterwards": func(ctx context.Context, id string) {
			go func() {
				time.Sleep(50 * time.Millisecond)
				call(context.Background(), id)
			}()
		},
		"/panic-inside": func(ctx context.Context, id string) {
			defer func() { recover() }()
			broken := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { panic(custom{}) }}
			request, _ := http.NewRequestWithContext(ctx, "GET", *origin+"/ok?id="+id, nil)
			broken.RoundTrip(request)
		},
		"/failing": func(ctx context.Context, id string) { callPath(ctx, "/fail", id) },
		"/nothing": func(context.Context, string) {},
	} {
		handler := handler
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("drop") != "" {
				hijacked, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					fail(err)
				}
				defer hijacked.Close()
			}
			handler(r.Context(), r.URL.Query().Get("id"))
			if r.URL.Query().Get("panic") != "" {
				panic(custom{})
			}
		})
	}
	return mux
}

var plain = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func call(ctx context.Context, id string) { callPath(ctx, "/ok", id) }

func callPath(ctx context.Context, path, id string) {
	request, err := http.NewRequestWithContext(ctx, "GET", *origin+path+"?id="+id, nil)
	if err != nil {
		fail(err)
	}
	response, err := plain.Do(request)
	if err != nil {
		return
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

func inGoroutines(count int, do func()) {
	var running sync.WaitGroup
	running.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			defer running.Done()
			do()
		}()
	}
	running.Wait()
}

func twoLevels(ctx context.Context, id string) {
	inGoroutines(1, func() { inGoroutines(1, func() { call(ctx, id) }) })
}

// own is a context of a program's own: the wrapped one first, as embedding makes it.
type own struct {
	context.Context
	name string
}

type key int

func wrapped(ctx context.Context) context.Context {
	for i := 0; i < 8; i++ {
		ctx = context.WithValue(ctx, key(i), i)
	}
	ctx, cancel := context.WithCancel(own{ctx, "own"})
	time.AfterFunc(time.Second, cancel)
	return &own{ctx, "outer"}
}

type job struct {
	ctx  context.Context
	id   string
	done chan struct{}
}

type pool chan job

func newPool(workers int) pool {
	jobs := make(pool)
	for i := 0; i < workers; i++ {
		go func() {
			for job := range jobs {
				call(job.ctx, job.id)
				close(job.done)
			}
		}()
	}
	return jobs
}

func (p pool) do(ctx context.Context, id string) {
	done := make(chan struct{})
	p <- job{ctx, id, done}
	<-done
}
