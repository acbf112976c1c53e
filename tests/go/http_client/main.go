// A net/http client under test: nothing of OpenTelemetry in it, no dependencies. On SIGUSR1 it sends the requests that
// -kinds names, in turn, and logs what it knows of each one that its Transport was given as a JSON line, with the interval
// on CLOCK_MONOTONIC. It is a server too: see parents.go. The tests compare spans with these lines.
//
//	http_client -listen 127.0.0.1:0 -origin http://127.0.0.1:8080 -kinds ok,redirect -times 23
//
// prints `listening HOST:PORT` and `ready`; then the lines, and `done` behind each round.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

var (
	listenAddress = flag.String("listen", "127.0.0.1:0", "address")
	origin        = flag.String("origin", "", "where requests go: http://HOST:PORT")
	kindList      = flag.String("kinds", "ok", "requests to send: "+kindNames())
	times         = flag.Int("times", 1, "how many, the kinds in turn")
)

func main() {
	flag.Parse()
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	listener, err := net.Listen("tcp", *listenAddress)
	if err != nil {
		fail(err)
	}
	go http.Serve(listener, parents())
	fmt.Printf("listening %s\n", listener.Addr())
	fmt.Println("ready")
	for range begin {
		names := strings.Split(*kindList, ",")
		for i := 0; i < *times; i++ {
			kinds[names[i%len(names)]]()
		}
		fmt.Println("done")
	}
}

// line is what the program itself knows of one request that its Transport was given.
type line struct {
	Method   string `json:"method"`
	URL      string `json:"url"`
	Status   int    `json:"status"`   // 0: there was no response
	Error    string `json:"error"`    // timeout, canceled, or the Go type
	Proto    string `json:"proto"`    // of the response
	Peer     string `json:"peer"`     // of the last connection, HOST:PORT
	Attempts int    `json:"attempts"` // connections that it was handed to
	Resends  int    `json:"resends"`  // redirects that led here
	Start    int64  `json:"start"`    // CLOCK_MONOTONIC, ns
	End      int64  `json:"end"`
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "http_client:", err)
	os.Exit(1)
}
