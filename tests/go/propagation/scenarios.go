package main

import (
	"context"
	"math/rand"
	"net/http"
	"sync"
	"time"
)

const fanOutSize = 3

func withContext(f *front, r *http.Request, id string) { f.call(r.Context(), id, 0, 0) }

func withBackground(f *front, _ *http.Request, id string) { f.call(context.Background(), id, 0, 0) }

func fanOut(f *front, r *http.Request, id string) { f.callInGoroutines(r.Context(), id) }

func backgroundFanOut(f *front, _ *http.Request, id string) {
	f.callInGoroutines(context.Background(), id)
}

// backgroundFanOutWaited starts its goroutines when it has waited, and most likely goes on on another P.
func backgroundFanOutWaited(f *front, _ *http.Request, id string) {
	time.Sleep(time.Duration(rand.Intn(1000)) * time.Microsecond)
	f.callInGoroutines(context.Background(), id)
}

func (f *front) callInGoroutines(ctx context.Context, id string) {
	var calls sync.WaitGroup
	for i := 0; i < fanOutSize; i++ {
		calls.Add(1)
		go func(number int) {
			defer calls.Done()
			f.call(ctx, id, number, 0)
		}(i)
	}
	calls.Wait()
}

func twoLevels(f *front, r *http.Request, id string) { f.callTwoLevelsDown(r.Context(), id) }

func backgroundTwoLevels(f *front, _ *http.Request, id string) {
	f.callTwoLevelsDown(context.Background(), id)
}

func (f *front) callTwoLevelsDown(ctx context.Context, id string) {
	done := make(chan struct{})
	go func() {
		go func() {
			defer close(done)
			f.call(ctx, id, 0, 0)
		}()
	}()
	<-done
}

// tenant is the kind of context that programs define for themselves.
type tenant struct {
	context.Context
	name string
}

type key int

// withWrapped hands on a context twelve steps away from the request's own.
func withWrapped(f *front, r *http.Request, id string) {
	ctx := r.Context()
	for i := 0; i < 4; i++ {
		ctx = context.WithValue(ctx, key(i), id)
	}
	ctx, stopTimer := context.WithTimeout(ctx, time.Minute)
	defer stopTimer()
	ctx = tenant{ctx, "acme"}
	for i := 4; i < 8; i++ {
		ctx = context.WithValue(ctx, key(i), id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.call(withoutCancel(ctx), id, 0, 0)
}

// copiedHeaders sends on all headers that came, as proxies do: a traceparent among them names the wrong parent.
func copiedHeaders(f *front, r *http.Request, id string) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, f.to+"/call/"+id+".0", nil)
	if err != nil {
		fail(err)
	}
	request.Header = r.Header.Clone()
	f.send(request, 0)
}

func panicking(f *front, r *http.Request, id string) {
	f.call(r.Context(), id, 0, 0)
	panic(http.ErrAbortHandler)
}

// lateWithContext and lateWithBackground call when their own request is over, most likely.
func lateWithContext(f *front, r *http.Request, id string) {
	f.callLater(withoutCancel(r.Context()), id)
}

func lateWithBackground(f *front, _ *http.Request, id string) { f.callLater(context.Background(), id) }

func (f *front) callLater(ctx context.Context, id string) {
	f.late.Add(1)
	go func() {
		defer f.late.Done()
		time.Sleep(time.Duration(rand.Intn(5000)) * time.Microsecond)
		f.call(ctx, id, 0, 0)
	}()
}
