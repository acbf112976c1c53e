// A client of fasthttp, and a net/http server with otelhttp about it, for `make test-libraries`. There is no official
// instrumentation of fasthttp's client: the program makes the spans that the conventions want, by OpenTelemetry's SDK. The
// id of a request is in its path.
package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"official"
)

var address string

// answer takes the status from a query "status=404"; it calls itself where the path begins with /front/ or /timed/, and
// redirects where it begins with /hop/.
func answer(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if id, found := strings.CutPrefix(path, "/front/"); found {
		send(r.Context(), "GET", "/back/"+id, nil, client.Do)
	} else if id, found := strings.CutPrefix(path, "/timed/"); found {
		send(r.Context(), "GET", "/back/"+id, nil, func(request *fasthttp.Request, response *fasthttp.Response) error {
			return client.DoTimeout(request, response, time.Minute)
		})
	} else if id, found := strings.CutPrefix(path, "/hop/"); found {
		w.Header().Set("Location", "/landed/"+id)
		w.WriteHeader(http.StatusFound)
	}
	if status, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		w.WriteHeader(status)
	}
	if strings.HasPrefix(path, "/large/") {
		w.Write(make([]byte, 1<<16))
	}
	w.Write([]byte("answer"))
}

var (
	client = fasthttp.Client{}
	small  = fasthttp.Client{MaxResponseBodySize: 1 << 10}
)

// send has a request sent, in a span of its own.
func send(
	ctx context.Context, method, path string, prepare func(*fasthttp.Request),
	do func(*fasthttp.Request, *fasthttp.Response) error,
) {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.Header.SetMethod(method)
	request.SetRequestURI("http://" + address + path)
	if prepare != nil {
		prepare(request)
	}
	span := begin(ctx, method, "http://"+address+path, 0)
	span.inject(&request.Header)
	err := do(request, response)
	if err != nil {
		if errors.Is(err, fasthttp.ErrBodyTooLarge) {
			span.answered(response)
		}
		span.failed(err)
	} else {
		span.answered(response)
	}
	span.End()
}

// redirected follows a redirect: a span for each request.
func redirected() {
	first := begin(context.Background(), "GET", "http://"+address+"/hop/r9", 0)
	first.told(302)
	first.peer(address)
	first.End()
	last := begin(context.Background(), "GET", "http://"+address+"/landed/r9", 1)
	status, _, err := client.Get(nil, "http://"+address+"/hop/r9")
	if err != nil {
		last.failed(err)
	}
	last.told(status)
	last.peer(address)
	last.End()
}

// refused asks where nobody listens.
func refused() {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	request.SetRequestURI("http://127.0.0.1:1/refused/r10?a=b")
	span := begin(context.Background(), "GET", "http://127.0.0.1:1/refused/r10?a=b", 0)
	span.failed(client.Do(request, response))
	span.End()
}

// unwanted leaves the response to fasthttp.
func unwanted() {
	request := fasthttp.AcquireRequest()
	request.SetRequestURI("http://" + address + "/unwanted/r11?status=404")
	span := begin(context.Background(), "GET", "http://"+address+"/unwanted/r11?status=404", 0)
	span.inject(&request.Header)
	if err := client.Do(request, nil); err != nil {
		span.failed(err)
	}
	span.told(404)
	span.peer(address)
	span.End()
}

// busy asks a client whose only connection is in use.
func busy() {
	narrow := fasthttp.HostClient{MaxConns: 1, Addr: address, Dial: func(string) (net.Conn, error) {
		time.Sleep(300 * time.Millisecond)
		return net.Dial("tcp", address)
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		send(context.Background(), "GET", "/page/r12", nil, narrow.Do)
	}()
	time.Sleep(100 * time.Millisecond)
	send(context.Background(), "GET", "/busy/r13", nil, narrow.Do)
	<-done
}

func main() {
	ctx := context.Background()
	official.Run(
		func(listener net.Listener) {
			http.Serve(listener, otelhttp.NewHandler(http.HandlerFunc(answer), "server"))
		},
		func(at string) {
			address = at
			send(ctx, "GET", "/front/r1", nil, client.Do)
			send(ctx, "GET", "/timed/r2", nil, client.Do)
			send(ctx, "POST", "/page/r3", func(r *fasthttp.Request) { r.SetBodyString("body") }, client.Do)
			send(ctx, "GET", "/page/r4?status=404", nil, client.Do)
			send(ctx, "GET", "/page/r5?status=500&x=%20", nil, client.Do)
			send(ctx, "PROPFIND", "/page/r6", nil, client.Do)
			send(ctx, "HEAD", "/page/r7", nil, client.Do)
			send(ctx, "GET", "/large/r8", nil, small.Do)
			redirected()
			refused()
			unwanted()
			busy()
		},
	)
}
