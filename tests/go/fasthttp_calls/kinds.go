package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// kinds are the requests that can be asked for.
var kinds = map[string]func(){
	"ok":      func() { get("/ok") },
	"missing": func() { get("/nowhere?status=404") },
	"failing": func() { get("/fail?status=500") },
	"post": func() {
		send("POST", "/ok", func(r *fasthttp.Request) { r.SetBodyString(strings.Repeat("x", 1<<16)) })
	},
	"brew":   func() { send("BREW", "/ok", nil) },
	"head":   func() { send("HEAD", "/ok", nil) },
	"old":    func() { get("/old") },
	"secret": func() { do(client, "GET", "http://me:word@"+*origin+"/ok?a=1&sig=secret&b=", nil) },
	// What it makes of it is what it sends.
	"escaped": func() {
		do(client, "GET", "http://"+*origin+"/tree/a%20b/%C3%A4/c?q=%20", nil, "http://"+*origin+"/tree/a%20b/%c3%a4%2Fc?q=%20")
	},
	"long": func() {
		get("/tree/" + strings.Repeat("long/", 60) + "?" + strings.Repeat("q", 200))
	},
	"set": func() {
		do(client, "GET", "http://"+*origin+"/set/by/parts?a=b&c=d", func(r *fasthttp.Request) {
			r.URI().SetPath("/set/by/parts")
			r.URI().QueryArgs().Set("a", "b")
			r.URI().QueryArgs().Set("c", "d")
		}, "http://"+*origin+"/")
	},
	"host header": func() {
		send("GET", "/ok", func(r *fasthttp.Request) {
			r.Header.SetHost("shop.example")
			r.UseHostHeader = true
		})
	},
	"only host header": onlyHostHeader,
	"unwanted":         unwanted,
	"redirect":         redirect,
	"repeated":         func() { get(fmt.Sprintf("/close/%d/2", serial.Add(1))) },
	"closed":           func() { send("POST", fmt.Sprintf("/close/%d/9", serial.Add(1)), nil) },
	"refused":          func() { do(client, "GET", "http://127.0.0.1:1/ok?sig=secret", nil) },
	"timeout":          timeout,
	"deadline":         deadline,
	"read timeout":     func() { do(&hasty, "POST", "http://"+*origin+"/slow", nil) },
	"dial timeout":     func() { do(&dialless, "GET", "http://"+*origin+"/ok", nil) },
	"no free":          noFree,
	"too large":        func() { do(&small, "GET", "http://"+*origin+"/large", nil) },
	"streamed":         streamed,
	"balanced":         balanced,
	"other scheme":     otherScheme,
	"panic":            panics,
	"carried":          func() { carried("get", nil) },
	"carried own": func() {
		carried("own", func(r *fasthttp.Request) { r.Header.Set("traceparent", ownTraceparent) })
	},
	"carried large": func() {
		carried("large", func(r *fasthttp.Request) { r.SetBodyString(strings.Repeat("x", 1<<16)) })
	},
	"carried stream": func() {
		carried("stream", func(r *fasthttp.Request) { r.SetBodyStream(strings.NewReader(strings.Repeat("x", 9999)), -1) })
	},
	"carried long": func() {
		carried("long", func(r *fasthttp.Request) { r.Header.Set("Long", strings.Repeat("x", 4100)) })
	},
}

var serial atomic.Int64

// doer is what all clients are.
type doer interface {
	Do(*fasthttp.Request, *fasthttp.Response) error
}

var client = &fasthttp.Client{MaxConnsPerHost: 4, RetryIfErr: repeats}

var (
	hasty    = fasthttp.Client{ReadTimeout: 50 * time.Millisecond}
	small    = fasthttp.Client{MaxResponseBodySize: 1 << 10}
	dialless = fasthttp.Client{Dial: func(address string) (net.Conn, error) {
		return fasthttp.DialTimeout(address, time.Nanosecond)
	}}
)

// current is the attempt under way: the kinds are called one after another.
var current line

// repeats is asked whether a failed attempt is made again, which ends it.
func repeats(request *fasthttp.Request, _ int, err error) (bool, bool) {
	if !request.Header.IsGet() {
		return false, false
	}
	current.End = monotonic()
	failed := current
	failed.Error = typeOf(err)
	failed.Peer = *origin
	failed.print()
	current.Start = current.End
	current.Resends++
	return false, true
}

// typeOf is what error.type has to say of an error.
func typeOf(err error) string {
	for known, name := range map[error]string{
		fasthttp.ErrNoFreeConns:      "ErrNoFreeConns",
		fasthttp.ErrConnectionClosed: "ErrConnectionClosed",
		io.EOF:                       "ErrConnectionClosed",
		fasthttp.ErrDialTimeout:      "ErrDialTimeout",
		fasthttp.ErrBodyTooLarge:     "ErrBodyTooLarge",
		fasthttp.ErrHostClientRedirectToDifferentScheme: "ErrHostClientRedirectToDifferentScheme",
	} {
		if errors.Is(err, known) {
			return "github.com/valyala/fasthttp." + name
		}
	}
	var dial *fasthttp.ErrDialWithUpstream
	if errors.As(err, &dial) {
		err = dial.Unwrap()
	}
	if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() {
		return "timeout"
	}
	return fmt.Sprintf("%T", err)
}

const ownTraceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// carried asks for what tells how it arrived, with an id in its path.
func carried(kind string, prepare func(*fasthttp.Request)) {
	send("POST", fmt.Sprintf("/carried/%s/%d", kind, serial.Add(1)), prepare)
}

func get(path string) { send("GET", path, nil) }

func send(method, path string, prepare func(*fasthttp.Request)) {
	do(client, method, "http://"+*origin+path, prepare)
}

// do sends and logs; `given` is the URL that the request is given, where it isn't the one that is asked for.
func do(through doer, method, url string, prepare func(*fasthttp.Request), given ...string) {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	if len(given) > 0 {
		request.SetRequestURI(given[0])
	} else {
		request.SetRequestURI(url)
	}
	request.Header.SetMethod(method)
	if prepare != nil {
		prepare(request)
	}
	log(method, url, response, func() error { return through.Do(request, response) })
}

// log calls what sends, and logs what has become of its last attempt.
func log(method, url string, response *fasthttp.Response, sends func() error) {
	current = line{Method: method, URL: url, Start: monotonic()}
	err := sends()
	current.End = monotonic()
	if peer := response.RemoteAddr(); peer != nil {
		current.Peer = peer.String()
	}
	if err != nil {
		current.Error = typeOf(err)
	}
	if current.Error == "github.com/valyala/fasthttp.ErrBodyTooLarge" || err == nil {
		current.Status = response.StatusCode()
		current.Proto = "1.1"
		if !response.Header.IsHTTP11() {
			current.Proto = "1.0"
		}
	}
	current.print()
}
