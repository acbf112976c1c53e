package main

import (
	"context"
	"net/http"
)

const (
	poolSize  = 8
	batchSize = 4
)

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

// workTwice calls twice for each job.
func (f *front) workTwice(number int) {
	for todo := range f.jobs {
		f.call(todo.ctx, todo.id, 0, number)
		f.call(todo.ctx, todo.id, 1, number)
		close(todo.done)
	}
}

// workInSelect takes jobs, and every now and then one that comes from no request.
func (f *front) workInSelect(number int) {
	for {
		select {
		case todo := <-f.jobs:
			f.call(todo.ctx, todo.id, 0, number)
			close(todo.done)
		case todo := <-f.chores:
			f.call(todo.ctx, todo.id, 0, number)
		}
	}
}

// workInBatches calls once for as many jobs as there are, up to batchSize.
func (f *front) workInBatches(number int) {
	for {
		batch := []job{<-f.jobs}
		for collecting := true; collecting && len(batch) < batchSize; {
			select {
			case todo := <-f.jobs:
				batch = append(batch, todo)
			default:
				collecting = false
			}
		}
		ids := make([]string, len(batch))
		for i, todo := range batch {
			ids[i] = todo.id
		}
		f.callFor(context.Background(), ids, 0, number)
		for _, todo := range batch {
			close(todo.done)
		}
	}
}

// doChores asks for work of its own while there are requests.
func (f *front) doChores() {
	for range f.wakes {
		f.chores <- job{ctx: context.Background(), id: newID()}
	}
}

func (f *front) callFromPool(ctx context.Context, id string) {
	todo := job{ctx, id, make(chan struct{})}
	f.jobs <- todo
	<-todo.done
}

func inPool(f *front, r *http.Request, id string) { f.callFromPool(r.Context(), id) }

func backgroundInPool(f *front, _ *http.Request, id string) { f.callFromPool(context.Background(), id) }

// backgroundInSelectPool sends its job in a select, and wakes who does chores.
func backgroundInSelectPool(f *front, r *http.Request, id string) {
	select {
	case f.wakes <- 1:
	default:
	}
	todo := job{context.Background(), id, make(chan struct{})}
	select {
	case f.jobs <- todo:
		<-todo.done
	case <-r.Context().Done():
	}
}

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
