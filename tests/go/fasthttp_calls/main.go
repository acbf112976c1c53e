// A fasthttp client under test: nothing of OpenTelemetry in it. On SIGUSR1 it sends the requests that -kinds names, in
// turn, and logs what it knows of each attempt as a JSON line, with the interval on CLOCK_MONOTONIC. It is a net/http
// server too, which answers these requests; see origin.go, and front.go for requests that it sends while it answers.
//
//	fasthttp_calls -listen 127.0.0.1:0 -origin 127.0.0.1:8080 -kinds ok,redirect -times 23
//	fasthttp_calls -listen 127.0.0.1:0 -load 10007 -origin 127.0.0.1:8080      # asks /front of it, 16 at once
//
// prints `listening HOST:PORT` and `ready`; then the lines, and `done` behind each round.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/valyala/fasthttp"
)

var (
	listenAddress = flag.String("listen", "127.0.0.1:0", "address")
	origin        = flag.String("origin", "", "where requests go, HOST:PORT")
	kindList      = flag.String("kinds", "ok", "requests to send")
	times         = flag.Int("times", 1, "how many, the kinds in turn")
	secure        = flag.Bool("secure", false, "serve with TLS, and ask for /back with TLS")
	byFasthttp    = flag.Bool("fasthttp", false, "answer /front by fasthttp's server")
	load          = flag.Int("load", 0, "instead of these, ask so often for /front of the origin, 16 at once")
)

func main() {
	flag.Parse()
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	listener, err := net.Listen("tcp", *listenAddress)
	if err != nil {
		fail(err)
	}
	if *secure && *origin == "" {
		listener = tls.NewListener(listener, selfSigned())
	}
	if *byFasthttp {
		go fasthttp.Serve(listener, frontOfFasthttp)
	} else {
		go http.Serve(listener, handlers())
	}
	fmt.Printf("listening %s\n", listener.Addr())
	fmt.Println("ready")
	for range begin {
		if *load > 0 {
			ask(*load)
		} else {
			names := strings.Split(*kindList, ",")
			for i := 0; i < *times; i++ {
				kinds[names[i%len(names)]]()
			}
		}
		fmt.Println("done")
	}
}

// line is what the program itself knows of one attempt.
type line struct {
	Method  string `json:"method"`
	URL     string `json:"url"`
	Status  int    `json:"status"` // 0: there was no response
	Error   string `json:"error"`  // what error.type has to say
	Proto   string `json:"proto"`  // of the response
	Peer    string `json:"peer"`   // HOST:PORT
	Resends int    `json:"resends"`
	Start   int64  `json:"start"` // CLOCK_MONOTONIC, ns
	End     int64  `json:"end"`
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "fasthttp_calls:", err)
	os.Exit(1)
}
