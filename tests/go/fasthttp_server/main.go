// A fasthttp server under test, and a client of net/http that loads it: nothing of OpenTelemetry in it.
//
//	fasthttp_server -listen 127.0.0.1:0 [-back ADDRESS] [-tls] [-raw-names]   prints `listening ADDRESS` and `ready`, then
//	                                       a line of JSON a request
//	fasthttp_server -call ADDRESS [-plain] prints `ready`; for each line `COUNT CONCURRENCY` on its standard input sends so
//	                                       many requests for random paths and prints `done FAILED`
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

var (
	listen   = flag.String("listen", "", "answer here")
	back     = flag.String("back", "", "address that /back/ calls")
	secure   = flag.Bool("tls", false, "answer over TLS")
	rawNames = flag.Bool("raw-names", false, "leave header names as they come")
	call     = flag.String("call", "", "load this address")
	plain    = flag.Bool("plain", false, "ask for pages that call nobody")
)

func main() {
	flag.Parse()
	if *call == "" {
		serve()
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 20 * time.Second}
	fmt.Println("ready")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var count, concurrency int
		if _, err := fmt.Sscan(input.Text(), &count, &concurrency); err != nil {
			fail(err)
		}
		fmt.Println("done", send(client, count, concurrency))
	}
}

// --- the server

type seen struct {
	Path   string `json:"path"`
	Method string `json:"method"`
	Status int    `json:"status"`
	Remote string `json:"remote"`
	Host   string `json:"host"`
}

var lines sync.Mutex

// logged recovers from what a handler panics with, as a program of fasthttp has to by itself.
func logged(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		line := seen{string(ctx.Path()), string(ctx.Method()), 0, ctx.RemoteAddr().String(), string(ctx.Host())}
		defer func() {
			if recover() != nil {
				ctx.Error("recovered", 500)
			}
			line.Status = ctx.Response.StatusCode()
			text, _ := json.Marshal(line)
			lines.Lock()
			fmt.Printf("%s\n", text)
			lines.Unlock()
		}()
		next(ctx)
	}
}

// answer does what a path's first part says.
func answer(ctx *fasthttp.RequestCtx) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(string(ctx.Path()), "/"), "/")
	switch kind {
	case "status":
		status, _ := strconv.Atoi(rest)
		ctx.SetStatusCode(status)
	case "panic":
		panic("on purpose")
	case "goexit":
		runtime.Goexit()
	case "slow":
		time.Sleep(300 * time.Millisecond)
	case "big":
		ctx.SetBodyString(strings.Repeat("x", len(ctx.PostBody())))
	case "stream":
		ctx.SetBodyStreamWriter(func(w *bufio.Writer) {
			for i := 0; i < 3; i++ {
				time.Sleep(50 * time.Millisecond)
				fmt.Fprintln(w, i)
				w.Flush()
			}
			get(context.Background(), "/streamed/"+rest)
		})
	case "timeout":
		fasthttp.TimeoutHandler(func(ctx *fasthttp.RequestCtx) {
			time.Sleep(300 * time.Millisecond)
			ctx.SetStatusCode(202)
		}, 50*time.Millisecond, "too late")(ctx)
	case "upgrade":
		ctx.SetStatusCode(101)
		ctx.Hijack(func(c net.Conn) { io.WriteString(c, "hijacked") })
	case "hijack":
		ctx.HijackSetNoResponse(true)
		ctx.Hijack(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 299 Hijacked\r\n\r\n") })
	case "back":
		switch way, id, _ := strings.Cut(rest, "/"); way {
		case "ctx":
			get(ctx, "/"+rest)
		case "background":
			get(context.Background(), "/"+rest)
		case "go":
			done := make(chan struct{})
			go func() {
				get(context.Background(), "/"+rest)
				close(done)
			}()
			<-done
		case "pool":
			// A worker that was there before, by the context alone.
			done := make(chan struct{})
			within, cancel := context.WithTimeout(ctx, 10*time.Second)
			jobs <- func() {
				get(within, "/"+rest)
				close(done)
			}
			<-done
			cancel()
		default:
			fail(fmt.Errorf("no way %q %q", way, id))
		}
		ctx.SetStatusCode(statusOf(rest))
	default:
		ctx.SetStatusCode(statusOf(rest))
		ctx.SetBodyString(string(ctx.Path()))
	}
}

var jobs = make(chan func())

var statuses = []int{200, 201, 404, 500, 503}

// statusOf tells a status by the last character of a path.
func statusOf(path string) int {
	if path == "" {
		return 200
	}
	return statuses[int(path[len(path)-1])%len(statuses)]
}

func get(ctx context.Context, path string) {
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+*back+path, nil)
	if err != nil {
		fail(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

func serve() {
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 64
	for i := 0; i < 4; i++ {
		go func() {
			for job := range jobs {
				job()
			}
		}()
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fail(err)
	}
	server := &fasthttp.Server{Handler: logged(answer), DisableHeaderNamesNormalizing: *rawNames, MaxRequestBodySize: 64 << 20}
	fmt.Printf("listening %s\nready\n", listener.Addr())
	if *secure {
		listener = tls.NewListener(listener, selfSigned())
	}
	fail(server.Serve(listener))
}

// --- the client

var ways = []string{"ctx", "background", "go", "pool"}

// send returns how many of count requests weren't answered as they had to be.
func send(client *http.Client, count, concurrency int) int64 {
	var begun, failed atomic.Int64
	var group sync.WaitGroup
	for i := 0; i < concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for number := begun.Add(1); number <= int64(count); number = begun.Add(1) {
				if err := one(client, ways[number%int64(len(ways))]); err != nil {
					failed.Add(1)
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}()
	}
	group.Wait()
	return failed.Load()
}

func one(client *http.Client, way string) error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	path := fmt.Sprintf("/back/%s/%x", way, random)
	if *plain {
		path = fmt.Sprintf("/plain/%x", random)
	}
	response, err := client.Get("http://" + *call + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != statusOf(path) {
		return fmt.Errorf("%s was answered by %d", path, response.StatusCode)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "fasthttp_server:", err)
	os.Exit(1)
}
