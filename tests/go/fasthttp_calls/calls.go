package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// request gives a GET of a path, and an empty response.
func requestOf(path string) (*fasthttp.Request, *fasthttp.Response) {
	request := fasthttp.AcquireRequest()
	request.SetRequestURI("http://" + *origin + path)
	return request, fasthttp.AcquireResponse()
}

// onlyHostHeader goes to the origin, whatever host the request names.
func onlyHostHeader() {
	through := &fasthttp.HostClient{Addr: *origin}
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	request.Header.SetHost("shop.example:81")
	request.SetRequestURI("/only?host=header")
	log("GET", "http://shop.example:81/only?host=header", response, func() error { return through.Do(request, response) })
}

// unwanted has no response to put anything into.
func unwanted() {
	request, response := requestOf("/unwanted?status=418")
	log("GET", "http://"+*origin+"/unwanted?status=418", response, func() error {
		err := client.Do(request, nil)
		response.SetStatusCode(418)
		current.Peer = *origin
		return err
	})
}

// redirect follows two of them: an attempt each.
func redirect() {
	request, response := requestOf("/hop/2")
	begun := monotonic()
	err := client.DoRedirects(request, response, 4)
	if err != nil {
		fail(err)
	}
	for hop, url := range []string{"/hop/2", "/hop/1?next=1", "/hop/0?next=1"} {
		status := 302
		if hop == 2 {
			status = response.StatusCode()
		}
		line{
			Method: "GET", URL: "http://" + *origin + url, Status: status, Proto: "1.1", Peer: *origin, Resends: hop,
			Start: begun, End: monotonic(),
		}.print()
	}
}

// timeout is a POST, of which there are no second attempts.
func timeout() {
	request, response := requestOf("/slow")
	request.Header.SetMethod("POST")
	log("POST", "http://"+*origin+"/slow", response, func() error {
		return client.DoTimeout(request, response, 50*time.Millisecond)
	})
}

func deadline() {
	request, response := requestOf("/ok?deadline")
	log("GET", "http://"+*origin+"/ok?deadline", response, func() error {
		return client.DoDeadline(request, response, time.Now().Add(time.Minute))
	})
}

// noFree has one connection, which another request holds.
func noFree() {
	narrow := &fasthttp.HostClient{Addr: *origin, MaxConns: 1}
	held, err := narrow.AcquireConn(0, false)
	if err != nil {
		fail(err)
	}
	do(narrow, "GET", "http://"+*origin+"/ok?none=free", nil)
	narrow.ReleaseConn(held)
}

// streamed has its span end with the head of the answer.
func streamed() {
	through := &fasthttp.Client{StreamResponseBody: true}
	request, response := requestOf("/large")
	log("GET", "http://"+*origin+"/large", response, func() error { return through.Do(request, response) })
	io.Copy(io.Discard, response.BodyStream())
	response.CloseBodyStream()
}

// balanced asks one of two, by a deadline.
func balanced() {
	both := &fasthttp.LBClient{Clients: []fasthttp.BalancingClient{
		&fasthttp.HostClient{Addr: *origin}, &fasthttp.HostClient{Addr: *origin},
	}}
	do(both, "GET", "http://"+*origin+"/ok?balanced", nil)
}

// otherScheme asks a client of plaintext for https.
func otherScheme() {
	do(&fasthttp.HostClient{Addr: *origin}, "GET", "https://"+*origin+"/ok", nil)
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic(net.ErrClosed) }

// panics in the midst of a body.
func panics() {
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		request, response := requestOf("/ok")
		request.Header.SetMethod("POST")
		request.SetBodyStream(io.MultiReader(strings.NewReader("x"), panicking{}), 99)
		entry := line{Method: "POST", URL: "http://" + *origin + "/ok", Peer: *origin, Start: monotonic()}
		defer func() {
			recover()
			entry.End = monotonic()
			entry.Error = "internal/poll.errNetClosing"
			entry.print()
		}()
		client.Do(request, response)
	}()
	done.Wait()
}
