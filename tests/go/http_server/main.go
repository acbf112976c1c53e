// A net/http server under test: nothing of OpenTelemetry in it, no dependencies. It logs what it did with each request
// as a JSON line, with the handler's own interval on CLOCK_MONOTONIC, the clock that BPF stamps with. The tests compare
// spans with these lines.
//
//	http_server -listen 127.0.0.1:0 -mux plain
//
// prints `process …`, `listening HOST:PORT` and `ready`; then the lines. It ends on SIGTERM, after its requests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var (
	listenAddress = flag.String("listen", "127.0.0.1:0", "address")
	muxName       = flag.String("mux", "plain", "how routes are arranged: "+arrangementNames())
	tlsMode       = flag.String("tls", "", "http1 or http2: serve TLS with a certificate made now")
	ownRequests   = flag.Int("self", 0, "requests to send to itself, the first at once, before it prints ready")
	exitCode      = flag.Int("exit", -1, "end with this code after -self")
	getURL        = flag.String("get", "", "be a client: get this URL -times times over HTTP/2, without checking the certificate")
	times         = flag.Int("times", 1, "see -get")
	quiet         = flag.Bool("quiet", false, "don't log requests")
)

func main() {
	flag.Parse()
	if *getURL != "" {
		os.Exit(getOverHTTP2(*getURL, *times))
	}
	handler, err := arrange(*muxName)
	if err != nil {
		fail(err)
	}
	listener, err := listen(*listenAddress)
	if err != nil {
		fail(err)
	}
	server := &http.Server{Handler: handler}
	if !*quiet {
		server.Handler = logged(handler)
	}
	group, _ := syscall.Getpgid(0)
	fmt.Printf("process pid=%d uid=%d gid=%d group=%d\n", os.Getpid(), os.Getuid(), os.Getgid(), group)
	fmt.Printf("listening %s\n", listener.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	restart := newRestart(listener, server)
	go serve(server, listener, restart.served)
	if *ownRequests > 0 {
		requestItself(listener.Addr(), *ownRequests)
		if *exitCode >= 0 {
			logLines.flush()
			os.Exit(*exitCode)
		}
	}
	fmt.Println("ready")
	select {
	case sig := <-stop:
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(ctx)
		logLines.flush()
		fmt.Printf("stopped by %s\n", sig)
	case <-restart.wanted:
		restart.now()
	}
}

func serve(server *http.Server, listener net.Listener, served chan struct{}) {
	var err error
	switch *tlsMode {
	case "":
		err = server.Serve(listener)
	default:
		server.TLSConfig = selfSigned()
		if *tlsMode == "http1" {
			server.TLSNextProto = noHTTP2
		}
		err = server.ServeTLS(listener, "", "")
	}
	if err != http.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
		fail(err)
	}
	close(served)
}

// requestItself sends the very first request as early as a program can: nothing may be missed.
func requestItself(address net.Addr, count int) {
	for i := 0; i < count; i++ {
		response, err := http.Get(fmt.Sprintf("http://%s/ok?self=%d", address, i))
		if err != nil {
			fail(err)
		}
		response.Body.Close()
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "http_server:", err)
	os.Exit(1)
}
