// Services under test for traces over several of them: nothing of OpenTelemetry in them, no dependencies. Each request
// carries a random id in a header of its own and in its path, each call that a service makes for it that id and a number
// in its path; every service logs what it was asked and what it asked for. So the true parent of every span is known.
//
//	propagation -log FILE                                      # a service that answers /call/ID.NUMBER
//	propagation -log FILE -to URL -scenario NAME               # a service that serves /front/ID by calling the other
//	propagation -load URL -requests 10007 -concurrency 16      # the client of them all
//
// A service prints `listening HOST:PORT` and `ready`, and ends on SIGTERM, after its requests, with its log written.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const idHeader = "X-Request-Id"

var (
	listenAddress = flag.String("listen", "127.0.0.1:0", "address")
	serveTLS      = flag.Bool("tls", false, "serve TLS with a certificate made now")
	to            = flag.String("to", "", "URL of the service to call, without a path; empty: call none")
	scenarioName  = flag.String("scenario", "context", "how it is called: "+scenarioNames())
	logPath       = flag.String("log", os.DevNull, "file for a JSON line a request and a call")
	loadURL       = flag.String("load", "", "be the client of this service")
	requests      = flag.Int("requests", 23, "requests of the client")
	concurrency   = flag.Int("concurrency", 16, "requests at once of the client")
	traceparent   = flag.Bool("traceparent", false, "the client sends traceparent 00-IDID-ID-01")
)

func main() {
	flag.Parse()
	if *loadURL != "" {
		load(*loadURL, *requests, *concurrency, *traceparent)
		return
	}
	log, err := newLineLog(*logPath)
	if err != nil {
		fail(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/call/", log.served(http.HandlerFunc(answer)))
	var running *front
	if *to != "" {
		if running, err = newFront(log, *to, *scenarioName); err != nil {
			fail(err)
		}
		mux.Handle("/front/", log.served(running))
	}
	listener, err := net.Listen("tcp", *listenAddress)
	if err != nil {
		fail(err)
	}
	server := &http.Server{Handler: mux}
	go func() {
		if *serveTLS {
			server.TLSConfig = selfSigned()
			err = server.ServeTLS(listener, "", "")
		} else {
			err = server.Serve(listener)
		}
		if err != http.ErrServerClosed {
			fail(err)
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Printf("listening %s\nready\n", listener.Addr())
	<-stop
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server.Shutdown(patience)
	if running != nil {
		running.late.Wait()
	}
	if err := log.close(); err != nil {
		fail(err)
	}
}

// answer takes up to 2 ms, so that requests overlap and end in another order than they began.
func answer(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Duration(rand.Intn(2000)) * time.Microsecond)
	fmt.Fprintln(w, strings.TrimPrefix(r.URL.Path, "/call/"))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "propagation:", err)
	os.Exit(1)
}
