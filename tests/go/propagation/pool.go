package main

import (
	"context"
	"net/http"
)

const poolSize = 8

// job is what a request asks the pool to do for it.
type job struct {
	ctx  context.Context
	id   string
	done chan struct{}
}

// work is a goroutine of the pool; it never ends.
func (f *front) work(number int) {
	for todo := range f.jobs {
		f.call(todo.ctx, todo.id, 0, number)
		close(todo.done)
	}
}

func (f *front) callFromPool(ctx context.Context, id string) {
	todo := job{ctx, id, make(chan struct{})}
	f.jobs <- todo
	<-todo.done
}

func inPool(f *front, r *http.Request, id string) { f.callFromPool(r.Context(), id) }

func backgroundInPool(f *front, _ *http.Request, id string) { f.callFromPool(context.Background(), id) }

// backgroundInLazyPool starts one goroutine of the pool in each of the first requests; all go on to serve any request.
func backgroundInLazyPool(f *front, _ *http.Request, id string) {
	f.mu.Lock()
	if f.workers < poolSize {
		f.workers++
		go f.work(f.workers)
	}
	f.mu.Unlock()
	f.callFromPool(context.Background(), id)
}
