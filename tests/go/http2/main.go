// Both ends of HTTP/2 under test: nothing of OpenTelemetry in it.
//
//	http2 -listen 127.0.0.1:0 -how HOW      answers; prints `listening ADDRESS` and `ready`, then a line of JSON a request;
//	                                        with SIGHUP another server takes over and the first one is shut down
//	http2 -call URL -how HOW -connections N prints `ready`; for each line `COUNT CONCURRENCY` on its standard input sends
//	                                        so many requests for random paths and prints `done FAILED`; for each line
//	                                        `get METHOD PATH TRACEPARENT` one request, and prints `got STATUS`; for each
//	                                        `leave METHOD PATH TRACEPARENT` one whose answer it doesn't read; for each
//	                                        `cancel METHOD PATH TRACEPARENT` one that it cancels once it is sent; for each
//	                                        `hold COUNT PATH` so many at once, and prints `got FAILED` when they have ended
//
// HOW: tls (net/http), h2c (net/http, since Go 1.24), x (golang.org/x/net/http2 over TLS), x-h2c.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

var (
	listen      = flag.String("listen", "", "answer here")
	call        = flag.String("call", "", "send requests to this URL")
	how         = flag.String("how", "tls", "tls, h2c, x or x-h2c")
	connections = flag.Int("connections", 1, "to call over, each with its own transport")
	back        = flag.String("back", "", "URL that /back/ calls over HTTP/1")
	refuse      = flag.String("refuse", "", "goaway or stream: how the first connections refuse their first request")
	refusals    = flag.Int("refusals", 1, "how many connections do")
	delay       = flag.Duration("delay", 0, "before an answer")
)

func main() {
	flag.Parse()
	log.SetOutput(io.Discard)
	if *call == "" {
		serve()
	}
	clients := make([]*http.Client, *connections)
	for i := range clients {
		clients[i] = &http.Client{Transport: transport(), Timeout: 20 * time.Second}
	}
	fmt.Println("ready")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch words := strings.Fields(input.Text()); words[0] {
		case "get", "leave", "cancel":
			get(clients[0], words[0], words[1], words[2], words[3])
			continue
		case "hold":
			hold(clients[0], words[1], words[2])
			continue
		}
		var count, concurrency int
		if _, err := fmt.Sscan(input.Text(), &count, &concurrency); err != nil {
			fail(err)
		}
		fmt.Println("done", send(clients, count, concurrency))
	}
}

// --- the server

type seen struct {
	Path   string `json:"path"`
	Method string `json:"method"`
	Proto  string `json:"proto"`
	Status int    `json:"status"`
	Remote string `json:"remote"`
	Host   string `json:"host"`
	Parent string `json:"parent"` // traceparent as it came
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.status == 0 {
		r.status = 200
	}
	return r.ResponseWriter.Write(data)
}

func (r *recorder) Flush() { r.ResponseWriter.(http.Flusher).Flush() }

var lines sync.Mutex

func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := &recorder{ResponseWriter: w}
		defer func() {
			text, _ := json.Marshal(seen{r.URL.Path, r.Method, r.Proto, own.status, r.RemoteAddr, r.Host, r.Header.Get("Traceparent")})
			lines.Lock()
			fmt.Printf("%s\n", text)
			lines.Unlock()
		}()
		next.ServeHTTP(own, r)
	})
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(*delay)
		io.WriteString(w, r.URL.Path)
	})
	mux.HandleFunc("/status/", func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Path[len("/status/"):])
		w.WriteHeader(status)
	})
	mux.HandleFunc("/nothing/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/panic/", func(http.ResponseWriter, *http.Request) { panic(errors.New("on purpose")) })
	mux.HandleFunc("/flushed-panic/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/goexit/", func(http.ResponseWriter, *http.Request) { runtime.Goexit() })
	mux.HandleFunc("/until-reset/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless/", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(w, r.URL.Path)
		}
	})
	mux.HandleFunc("/hints/", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("/trailers/", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path)
		w.Header().Set(http.TrailerPrefix+"Sum", "1")
	})
	mux.HandleFunc("/back/", func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		path := strings.TrimPrefix(r.URL.Path, "/back/")
		if strings.HasPrefix(path, "background/") {
			ctx = context.Background()
		}
		done := make(chan struct{})
		ask := func() {
			request, _ := http.NewRequestWithContext(ctx, "GET", *back+"/"+path, nil)
			if response, err := http.DefaultClient.Do(request); err == nil {
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			close(done)
		}
		if strings.Contains(path, "/go/") {
			go ask()
		} else {
			ask()
		}
		<-done
		io.WriteString(w, r.URL.Path)
	})
	return logged(mux)
}

func serve() {
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fail(err)
	}
	fmt.Println("listening", listener.Addr())
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	certificate := selfSigned()
	for {
		copied, err := listener.(*net.TCPListener).File()
		if err != nil {
			fail(err)
		}
		server := answer(listener, certificate)
		fmt.Println("ready")
		<-hangups
		if listener, err = net.FileListener(copied); err != nil {
			fail(err)
		}
		copied.Close()
		go server.Shutdown(context.Background())
	}
}

// answer answers what comes to listener, until the server is shut down.
func answer(listener net.Listener, certificate *tls.Config) *http.Server {
	server := &http.Server{Handler: handler(), TLSConfig: certificate.Clone(), ErrorLog: log.New(io.Discard, "", 0)}
	switch *how {
	case "x":
		if err := http2.ConfigureServer(server, &http2.Server{}); err != nil {
			fail(err)
		}
	case "x-h2c":
		server.Handler = h2c.NewHandler(server.Handler, &http2.Server{})
	case "h2c":
		unencryptedServer(server)
	}
	if *refuse != "" {
		first := &refusing{Listener: listener, how: *refuse, count: *refusals}
		if !strings.HasSuffix(*how, "h2c") {
			first.tls = server.TLSConfig.Clone()
			first.tls.NextProtos = []string{"h2"}
		}
		listener = first
	}
	go func() {
		var err error
		if strings.HasSuffix(*how, "h2c") {
			err = server.Serve(listener)
		} else {
			err = server.ServeTLS(listener, "", "")
		}
		if err != http.ErrServerClosed {
			fail(err)
		}
	}()
	return server
}

// --- the client

func transport() http.RoundTripper {
	insecure := &tls.Config{InsecureSkipVerify: true}
	switch *how {
	case "h2c":
		return unencryptedTransport()
	case "x":
		return &http2.Transport{TLSClientConfig: insecure}
	case "x-h2c":
		return &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	}
	return &http.Transport{TLSClientConfig: insecure, ForceAttemptHTTP2: true}
}

// get sends one request, with a traceparent unless that is "-", and gives up after a while.
func get(client *http.Client, how, method, path, traceparent string) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if how == "cancel" {
		ctx = httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			WroteHeaders: func() { time.AfterFunc(50*time.Millisecond, cancel) },
		})
		ctx, cancel = context.WithCancel(ctx)
	}
	request, err := http.NewRequestWithContext(ctx, method, *call+path, nil)
	if err != nil {
		fail(err)
	}
	if traceparent != "-" {
		request.Header.Set("Traceparent", traceparent)
	}
	status := 0
	if response, err := client.Do(request); err == nil {
		status = response.StatusCode
		if how != "leave" {
			io.Copy(io.Discard, response.Body)
		}
		response.Body.Close()
	}
	fmt.Println("got", status)
}

// hold sends count requests at once.
func hold(client *http.Client, count, path string) {
	var failed atomic.Int64
	var group sync.WaitGroup
	held, err := strconv.Atoi(count)
	if err != nil {
		fail(err)
	}
	for i := 0; i < held; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			if response, err := client.Get(*call + path); err != nil {
				failed.Add(1)
			} else {
				response.Body.Close()
			}
		}()
	}
	group.Wait()
	fmt.Println("got", failed.Load())
}

// send returns how many of count requests failed.
func send(clients []*http.Client, count, concurrency int) int64 {
	var begun, failed atomic.Int64
	var group sync.WaitGroup
	for i := 0; i < concurrency; i++ {
		client := clients[i%len(clients)]
		group.Add(1)
		go func() {
			defer group.Done()
			for begun.Add(1) <= int64(count) {
				if err := one(client); err != nil {
					failed.Add(1)
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}()
	}
	group.Wait()
	return failed.Load()
}

func one(client *http.Client) error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	path := fmt.Sprintf("/%x", random)
	response, err := client.Get(*call + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(*call+path, string(body)) || response.ProtoMajor != 2 {
		return fmt.Errorf("%s was answered with %q over %s", path, body, response.Proto)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "http2:", err)
	os.Exit(1)
}
