package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

var backs = fasthttp.Client{MaxConnsPerHost: 64, TLSConfig: &tls.Config{InsecureSkipVerify: true}}

// front asks /back for the id that it was asked for, on its own goroutine or on one that it starts, and answers what it
// was answered.
func front(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.Atoi(r.URL.Query().Get("id"))
	var status int
	if id%3 == 0 {
		var done sync.WaitGroup
		done.Add(1)
		go func() {
			defer done.Done()
			status = back(id)
		}()
		done.Wait()
	} else {
		status = back(id)
	}
	w.WriteHeader(status)
}

func back(id int) int {
	status := [...]int{200, 404, 503, 200, 201}[id%5]
	scheme := "http"
	if *secure {
		scheme = "https"
	}
	if id%11 == 0 {
		// Redirected, on a goroutine of fasthttp's.
		url := fmt.Sprintf("%s://%s/via?id=%d&status=%d", scheme, *origin, id, status)
		status, _, err := backs.GetTimeout(nil, url, 10*time.Second)
		if err != nil {
			fail(err)
		}
		return status
	}
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.SetRequestURI(fmt.Sprintf("%s://%s/back?id=%d&status=%d", scheme, *origin, id, status))
	var err error
	if id%2 == 0 {
		err = backs.DoTimeout(request, response, 10*time.Second)
	} else {
		err = backs.Do(request, response)
	}
	if err != nil {
		fail(err)
	}
	return response.StatusCode()
}

// ask asks for /front, each time with an id of its own, and logs what was answered.
func ask(count int) {
	ids := make(chan int)
	var workers sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	for range 16 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			client := http.Client{Transport: transport}
			for id := range ids {
				url := fmt.Sprintf("http://%s/front?id=%d", *origin, id)
				response, err := client.Get(url)
				if err != nil {
					fail(err)
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				line{Method: "GET", URL: url, Status: response.StatusCode}.print()
			}
		}()
	}
	for id := range count {
		ids <- id
	}
	close(ids)
	workers.Wait()
}
