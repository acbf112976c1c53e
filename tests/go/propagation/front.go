package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"
)

// front serves a request by calling another service in the way of its scenario.
type front struct {
	log    *lineLog
	to     string
	client *http.Client
	handle func(*front, *http.Request, string)
	jobs   chan job
	chores chan job // that come from no request
	wakes  chan int

	mu      sync.Mutex
	workers int // that were started by requests

	late sync.WaitGroup // goroutines that go on after their request
}

// scenario is a way to call another service.
type scenario struct {
	handle    func(f *front, r *http.Request, id string)
	transport func(*http.Transport) // changes what is usual here: as many idle connections as requests at once
	pool      int                   // goroutines that main starts to call for the requests
	work      func(*front, int)     // what each of them does, given its number from 1
	buffer    int                   // jobs that wait in the channel
}

var scenarios = map[string]scenario{
	"context":                   {handle: withContext},
	"fan-out":                   {handle: fanOut},
	"two-levels":                {handle: twoLevels},
	"pool":                      {handle: inPool, pool: poolSize, work: (*front).work},
	"wrapped":                   {handle: withWrapped},
	"background":                {handle: withBackground},
	"background-fan-out":        {handle: backgroundFanOut},
	"background-fan-out-waited": {handle: backgroundFanOutWaited},
	"background-two-levels":     {handle: backgroundTwoLevels},
	"background-pool":           {handle: backgroundInPool, pool: poolSize, work: (*front).work},
	"background-pool-twice":     {handle: backgroundInPool, pool: poolSize, work: (*front).workTwice},
	"background-buffered-pool":  {handle: backgroundInPool, pool: poolSize, work: (*front).work, buffer: 3},
	"background-select-pool":    {handle: backgroundInSelectPool, pool: poolSize, work: (*front).workInSelect, buffer: 3},
	"background-batches":        {handle: backgroundInPool, pool: 2, work: (*front).workInBatches, buffer: 16},
	"background-lazy-pool":      {handle: backgroundInLazyPool},
	"churn":                     {handle: withContext, transport: func(t *http.Transport) { t.MaxIdleConnsPerHost = 2 }},
	"close":                     {handle: withContext, transport: func(t *http.Transport) { t.DisableKeepAlives = true }},
	"one-connection":            {handle: withContext, transport: func(t *http.Transport) { t.MaxConnsPerHost = 1 }},
	"copied-headers":            {handle: copiedHeaders},
	"panic":                     {handle: panicking},
	"late-context":              {handle: lateWithContext},
	"late-background":           {handle: lateWithBackground},
}

func scenarioNames() string {
	var names []string
	for name := range scenarios {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

func newFront(log *lineLog, to, name string) (*front, error) {
	way, ok := scenarios[name]
	if !ok {
		return nil, fmt.Errorf("no scenario %q; there are %s", name, scenarioNames())
	}
	transport := &http.Transport{
		MaxIdleConnsPerHost: 64, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	if way.transport != nil {
		way.transport(transport)
	}
	f := &front{
		log: log, to: to, client: &http.Client{Transport: transport}, handle: way.handle,
		jobs: make(chan job, way.buffer), chores: make(chan job, 1), wakes: make(chan int),
	}
	go f.doChores()
	for i := 1; i <= way.pool; i++ {
		go way.work(f, i)
	}
	return f, nil
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/front/")
	f.handle(f, r, id)
	fmt.Fprintln(w, id)
}

// call calls for one request: `number` tells its calls apart.
func (f *front) call(ctx context.Context, id string, number, worker int) {
	f.callFor(ctx, []string{id}, number, worker)
}

// callFor calls once for several requests.
func (f *front) callFor(ctx context.Context, ids []string, number, worker int) {
	id := ids[0]
	path := fmt.Sprintf("/call/%s.%d", id, number)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.to+path, nil)
	if err != nil {
		fail(err)
	}
	request.Header.Set(idHeader, id)
	f.send(request, worker, ids[1:]...)
}

func (f *front) send(request *http.Request, worker int, others ...string) {
	entry := line{
		Event: "called", ID: request.Header.Get(idHeader), Others: others, Path: request.URL.Path, Worker: worker,
	}
	response, err := f.client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if err != nil {
		entry.Error = err.Error()
	}
	f.log.add(entry)
}
