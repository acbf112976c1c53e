package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// load sends requests, each with an id of its own, and prints how that went as one JSON line.
func load(url string, count, concurrency int, withTraceparent bool) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: concurrency}}
	var left, answered atomic.Int64
	left.Store(int64(count))
	var clients sync.WaitGroup
	began := time.Now()
	for i := 0; i < concurrency; i++ {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for left.Add(-1) >= 0 {
				if ask(client, url, withTraceparent) {
					answered.Add(1)
				}
			}
		}()
	}
	clients.Wait()
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"sent": count, "answered": answered.Load(), "seconds": time.Since(began).Seconds(),
	})
}

func newID() string {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		fail(err)
	}
	return fmt.Sprintf("%x", random)
}

// ask sends one request and tells whether it was answered with 200.
func ask(client *http.Client, url string, withTraceparent bool) bool {
	id := newID()
	request, err := http.NewRequest(http.MethodGet, url+"/front/"+id, nil)
	if err != nil {
		fail(err)
	}
	request.Header.Set(idHeader, id)
	if withTraceparent {
		request.Header.Set("Traceparent", fmt.Sprintf("00-%s%s-%s-01", id, id, id))
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return response.StatusCode == http.StatusOK
}
