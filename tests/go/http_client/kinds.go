package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sort"
	"strings"
	"time"
)

// kinds are the requests that can be asked for, each with what has to become of it.
var kinds = map[string]func(){
	"ok":          func() { get("/ok") },
	"missing":     func() { get("/nowhere") },
	"failing":     func() { get("/fail") },
	"redirect":    func() { get("/redirect") },
	"post":        func() { send("POST", *origin+"/echo", strings.NewReader(strings.Repeat("x", 1<<16))) },
	"brew":        func() { send("BREW", *origin+"/ok", nil) },
	"secret":      func() { send("GET", strings.Replace(*origin, "://", "://me:word@", 1)+"/ok?a=1&sig=secret&b=", nil) },
	"escaped":     func() { get("/tree/a%20b/%c3%a4%2Fc") },
	"unescaped":   func() { getURL(&url.URL{Scheme: "http", Host: host(), Path: "/tree/a b?c=ä;d", RawQuery: "x"}) },
	"long":        func() { get("/tree/" + strings.Repeat("long/", 60) + "?" + strings.Repeat("q", 200)) },
	"late":        late,
	"refused":     func() { send("GET", "http://"+closedPort()+"/ok", nil) },
	"unresolved":  func() { send("GET", "http://nowhere.invalid/ok", nil) },
	"unsupported": func() { send("GET", "gopher://127.0.0.1/ok", nil) },
	"timeout":     timeout,
	"canceled":    canceled,
	"closed":      closed,
	"empty":       func() { getURL(&url.URL{Scheme: "http"}) },
	"panic":       panics,
}

func kindNames() string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

var transport = &http.Transport{
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableCompression: true,
}

var client = &http.Client{Transport: logged{transport}}

// logged is where a Transport is asked, directly in front of it: once a redirect.
type logged struct{ next *http.Transport }

func (l logged) RoundTrip(request *http.Request) (*http.Response, error) {
	entry := line{Method: request.Method, URL: request.URL.String()}
	for from := request; from.Response != nil; from = from.Response.Request {
		entry.Resends++
	}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		entry.Attempts++
		entry.Peer = got.Conn.RemoteAddr().String()
	}}
	traced := request.WithContext(httptrace.WithClientTrace(request.Context(), trace))
	defer func() {
		entry.End = monotonic()
		if value := recover(); value != nil {
			entry.Error = fmt.Sprintf("%T", value)
			entry.print()
			panic(value)
		}
		entry.print()
	}()
	entry.Start = monotonic()
	response, err := l.next.RoundTrip(traced)
	if err != nil {
		entry.Error = name(err)
		return nil, err
	}
	entry.Status, entry.Proto = response.StatusCode, response.Proto
	return response, nil
}

// name is how the agent is to call an error.
func name(err error) string {
	var network net.Error
	if errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "request canceled") {
		return "canceled"
	}
	if errors.As(err, &network) && network.Timeout() {
		return "timeout"
	}
	return fmt.Sprintf("%T", err)
}

func host() string { return strings.TrimPrefix(*origin, "http://") }

func get(path string) { send("GET", *origin+path, nil) }

func getURL(where *url.URL) { finish(&http.Request{URL: where, Header: http.Header{}}) }

func send(method, where string, body io.Reader) {
	request, err := http.NewRequest(method, where, body)
	if err != nil {
		fail(err)
	}
	finish(request)
}

func finish(request *http.Request) {
	response, err := client.Do(request)
	if err != nil {
		return
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

// late reads its response a while after it has got it.
func late() {
	response, err := client.Get(*origin + "/large")
	if err != nil {
		fail(err)
	}
	time.Sleep(100 * time.Millisecond)
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

func timeout() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", *origin+"/slow?ms=300", nil)
	if err != nil {
		fail(err)
	}
	finish(request)
}

func canceled() {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(30*time.Millisecond, cancel)
	request, err := http.NewRequestWithContext(ctx, "GET", *origin+"/slow?ms=300", nil)
	if err != nil {
		fail(err)
	}
	finish(request)
}

// closed has its second request sent again by the Transport: the server closes the connection when it has read it.
func closed() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	defer listener.Close()
	go func() {
		for connections := 0; ; connections++ {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func(answers int) {
				defer connection.Close()
				text := make([]byte, 4096)
				for i := 0; i < answers; i++ {
					connection.Read(text)
					io.WriteString(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
				connection.Read(text)
			}(1)
		}
	}()
	for i := 0; i < 2; i++ {
		send("GET", "http://"+listener.Addr().String()+"/closed", nil)
	}
}

func closedPort() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

type custom struct{}

// panics leaves the Transport without a return.
func panics() {
	defer func() { recover() }()
	broken := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { panic(custom{}) }}
	request, err := http.NewRequest("GET", *origin+"/ok", nil)
	if err != nil {
		fail(err)
	}
	logged{broken}.RoundTrip(request)
}
